// Learning curves by uPlot; colours follow the page's, in light and in dark.
"use strict";
(() => {
  const box = document.querySelector("[data-curves]");
  const plots = new Map();
  let told = null;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function options(labels, width) {
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    return {
      width, height: 240,
      scales: { x: { time: false }, y: { range: [0, 1] } },
      axes: [{ ...axis, label: "model of round", labelSize: 18, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] }, axis],
      cursor: { drag: { x: false, y: false } },
      series: [
        { label: "round" },
        ...labels.map((label, index) => ({
          label, stroke: colour(`--curve-${(index % 4) + 1}`), width: 2, dash: index > 3 ? [6, 4] : undefined, spanGaps: true,
          value: (_plot, value) => (value == null ? "–" : value.toFixed(3)),
        })),
      ],
    };
  }

  function draw() {
    for (const family of ["dice", "auc"]) {
      const place = document.getElementById(`curve-${family}`);
      const labels = Object.keys(told[family]);
      const data = [told.round, ...Object.values(told[family])];
      const before = plots.get(family);
      if (before && before.labels === labels.join()) { before.plot.setData(data); continue; }
      if (before) before.plot.destroy();
      place.textContent = labels.length ? "" : "nothing measured yet";
      if (!labels.length) { plots.delete(family); continue; }
      plots.set(family, { labels: labels.join(), plot: new uPlot(options(labels, place.clientWidth || 480), data, place) });
    }
  }

  function redraw() {
    for (const { plot } of plots.values()) plot.destroy();
    plots.clear();
    if (told) draw();
  }

  async function load() {
    const answer = await fetch(box.dataset.curves, { headers: { "HX-Request": "true" } });
    if (!answer.ok) return;
    told = await answer.json();
    draw();
  }

  document.body.addEventListener("round-changed", load);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let resizing = 0;
  window.addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(redraw, 200); });
  load();
})();
