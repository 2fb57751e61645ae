// Follows a job and loads the page again when it is over.
"use strict";
(() => {
  const box = document.querySelector("[data-stream]");
  if (!box) return;
  const bar = document.getElementById("progress");
  const text = document.getElementById("progress-text");
  const stream = new EventSource(box.dataset.stream);

  function show(message) {
    const told = JSON.parse(message.data);
    const words = told.text.charAt(0).toUpperCase() + told.text.slice(1);
    if (text.textContent !== words) text.textContent = words;
    if (told.share > 0) bar.value = told.share; else bar.removeAttribute("value");
  }

  stream.addEventListener("progress", show);
  stream.addEventListener("over", () => { stream.close(); location.reload(); });
  // A browser does not come back after a refusal: the session is over, or too many pages are open.
  stream.addEventListener("error", () => {
    const refused = stream.readyState === EventSource.CLOSED;
    text.textContent = refused ? "The connection ended. Load the page again." : "The connection is being made again.";
  });
  window.addEventListener("pagehide", () => stream.close());
})();
