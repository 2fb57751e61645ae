// The live page of a run: lines of the feed as they come, and parts of the page asked for again when they are old.
"use strict";
(() => {
  const page = document.getElementById("live");
  const feed = document.getElementById("feed");
  const connection = document.getElementById("connection");
  const MOST_LINES = 300;
  const PAUSE_MS = 1000;
  const waiting = new Set();

  // At most one request a second for each part, however many hospitals answer at once.
  function announce(name) {
    if (waiting.has(name)) return;
    waiting.add(name);
    setTimeout(() => {
      waiting.delete(name);
      document.body.dispatchEvent(new CustomEvent(name));
    }, PAUSE_MS);
  }

  function add(message) {
    const row = document.createElement("template");
    row.innerHTML = message.data;
    const line = row.content.firstElementChild;
    if (!line || document.getElementById(line.id)) return;
    line.classList.add("fresh");
    feed.prepend(line);
    while (feed.rows.length > MOST_LINES) feed.deleteRow(-1);
    announce("run-changed");
  }

  // What somebody has opened stays open when its part of the page is replaced; htmx itself keeps the focus, by id.
  const opened = new Map();
  document.body.addEventListener("htmx:beforeSwap", (swap) => {
    const box = swap.detail.target;
    opened.set(box, [...box.querySelectorAll("details[open]")].map((details) => details.id));
  });
  document.body.addEventListener("htmx:afterSwap", (swap) => {
    for (const id of opened.get(swap.detail.target) || []) {
      const details = document.getElementById(id);
      if (details) details.open = true;
    }
  });

  const stream = new EventSource(`${page.dataset.stream}?after=${page.dataset.last}`);
  stream.addEventListener("open", () => { connection.textContent = "live"; });
  stream.addEventListener("error", () => {
    connection.textContent = stream.readyState === EventSource.CLOSED
      ? "not live: load the page again" : "not live: the connection is being made again";
  });
  stream.addEventListener("happened", add);
  stream.addEventListener("round", (message) => { add(message); announce("round-changed"); });
  stream.addEventListener("over", () => {
    stream.close();
    connection.textContent = "not live: the session has ended, log in again";
  });
  window.addEventListener("pagehide", () => stream.close());
  // Connections and the state change without an event, for instance when a hospital goes offline.
  setInterval(() => announce("run-changed"), 15000);
})();
