// The viewer of a case: NiiVue over the picture made by the server, where the browser has WebGL2. In mode "draw" it corrects the outline.
import { Niivue, SHOW_RENDER, SLICE_TYPE } from "/static/vendor/niivue.js";

const box = document.getElementById("viewer");
const screen = box.querySelector(".screen");
const canvas = document.getElementById("canvas");
const picture = document.getElementById("picture");
const status = document.getElementById("viewer-status");
const drawing = box.dataset.mode === "draw";
const NAMES = ["", "necrotic or non-enhancing core", "oedema", "enhancing tumour"];
// Okabe-Ito: vermilion, sky blue, yellow, as in the pictures made by the server.
const LABELS = { R: [0, 213, 86, 240], G: [0, 94, 180, 228], B: [0, 0, 233, 66], A: [0, 255, 255, 255], I: [0, 1, 2, 3], labels: NAMES };
const VIEWS = { planes: SLICE_TYPE.MULTIPLANAR, axial: SLICE_TYPE.AXIAL, solid: SLICE_TYPE.RENDER };

function say(text) { status.textContent = text; }

// The name of what draws; empty where there is no WebGL2.
function rendererName() {
  const context = document.createElement("canvas").getContext("webgl2");
  if (!context) return "";
  const names = context.getExtension("WEBGL_debug_renderer_info");
  return String(context.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : context.RENDERER)) || "unknown";
}

async function start() {
  const renderer = rendererName();
  if (!renderer) {
    say("This browser has no WebGL2: the picture stands in for the viewer." + (drawing ? " Correct the outline elsewhere and upload it." : ""));
    document.getElementById("by-file")?.setAttribute("open", "");
    return;
  }
  say("Loading the images");
  picture.hidden = true;
  canvas.hidden = false;
  const viewer = new Niivue({
    isRadiologicalConvention: true,
    showAllOrientationMarkers: true,
    show3Dcrosshair: true,
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.42, 0.77, 0.84, 0.9],
    crosshairWidth: 0.4,
    multiplanarPadPixels: 14,
    dragAndDropEnabled: false,
    logLevel: "error",
    loadingText: "",
    // Without a graphics card the solid view takes seconds a frame: it is drawn only when asked for.
    multiplanarShowRender: /swiftshader|llvmpipe|software|basic render/i.test(renderer) ? SHOW_RENDER.NEVER : SHOW_RENDER.AUTO,
    fontMinPx: 15,
    fontColor: [0.91, 0.91, 0.91, 1],
  });
  await viewer.attachToCanvas(canvas);
  viewer.setSliceType(SLICE_TYPE.MULTIPLANAR);
  const shown = { sequence: box.dataset.background, outline: true, uncertainty: false, opacity: 0.5 };
  await load(viewer, shown);
  bind(viewer, shown);
  if (drawing) await beginDrawing(viewer);
  lookAtTumour(viewer);
  document.getElementById("toolbar").hidden = false;
  say("");
  screen.dataset.ready = "yes";
}

async function load(viewer, shown) {
  const volumes = [{ url: `${box.dataset.images}${shown.sequence}.nii.gz`, name: `${shown.sequence}.nii.gz`, colormap: "gray" }];
  if (!drawing) {
    volumes.push({ url: `${box.dataset.maps}/segmentation.nii.gz`, name: "segmentation.nii.gz", opacity: 0 });
    if (box.dataset.uncertainty === "yes") {
      volumes.push({ url: `${box.dataset.maps}/uncertainty.nii.gz`, name: "uncertainty.nii.gz", colormap: "inferno", opacity: 0, cal_min: 0.1, cal_max: 1 });
    }
  }
  await viewer.loadVolumes(volumes);
  if (!drawing) viewer.volumes[1].setColormapLabel(LABELS);
  overlay(viewer, shown);
}

// The cross begins in the middle of the outline; where there is none, in the middle of the picture.
function lookAtTumour(viewer) {
  const base = viewer.volumes[0];
  const labels = drawing ? viewer.drawBitmap : viewer.volumes[1].img2RAS();
  const [, nx, ny, nz] = base.dimsRAS;
  const sum = [0, 0, 0];
  let count = 0;
  for (let place = 0; place < labels.length; place += 1) {
    if (!labels[place]) continue;
    sum[0] += place % nx;
    sum[1] += Math.floor(place / nx) % ny;
    sum[2] += Math.floor(place / (nx * ny));
    count += 1;
  }
  if (count) viewer.scene.crosshairPos = [(sum[0] / count + 0.5) / nx, (sum[1] / count + 0.5) / ny, (sum[2] / count + 0.5) / nz];
  viewer.drawScene();
}

function overlay(viewer, shown) {
  if (drawing) return;
  viewer.setOpacity(1, shown.outline ? shown.opacity : 0);
  if (viewer.volumes.length > 2) viewer.setOpacity(2, shown.uncertainty ? shown.opacity : 0);
  viewer.updateGLVolume();
}

function bind(viewer, shown) {
  for (const choice of document.querySelectorAll("input[name=sequence]")) {
    choice.addEventListener("change", async () => {
      shown.sequence = choice.value;
      say("Loading the images");
      await (drawing ? exchange(viewer, shown) : load(viewer, shown));
      say("");
    });
  }
  for (const choice of document.querySelectorAll("input[name=view]")) {
    choice.addEventListener("change", () => viewer.setSliceType(VIEWS[choice.value]));
  }
  const outline = document.getElementById("show-outline");
  const uncertainty = document.getElementById("show-uncertainty");
  const opacity = document.getElementById("opacity");
  outline?.addEventListener("change", () => { shown.outline = outline.checked; overlay(viewer, shown); });
  uncertainty?.addEventListener("change", () => { shown.uncertainty = uncertainty.checked; overlay(viewer, shown); });
  opacity?.addEventListener("input", () => { shown.opacity = Number(opacity.value); overlay(viewer, shown); });
}

// Another sequence under a drawing that must not be lost.
async function exchange(viewer, shown) {
  const drawn = viewer.drawBitmap.slice();
  await load(viewer, shown);
  viewer.drawBitmap.set(drawn);
  viewer.refreshDrawing(true);
}

async function beginDrawing(viewer) {
  viewer.setDrawColormap({ ...LABELS });
  await viewer.loadDrawingFromUrl(`${box.dataset.maps}/segmentation.nii.gz`);
  viewer.setDrawOpacity(0.5);
  viewer.setDrawingEnabled(false);
  const fill = document.getElementById("fill");
  const pens = document.querySelectorAll("input[name=pen]");
  const choose = () => {
    const value = document.querySelector("input[name=pen]:checked").value;
    viewer.setDrawingEnabled(value !== "");
    if (value !== "") viewer.setPenValue(Number(value), fill.checked);
  };
  for (const pen of pens) pen.addEventListener("change", choose);
  fill.addEventListener("change", choose);
  document.getElementById("undo").addEventListener("click", () => viewer.drawUndo());
  for (const id of ["pens", "pen-tools", "save"]) document.getElementById(id).hidden = false;
  const form = document.getElementById("correction");
  form.addEventListener("submit", async (submit) => {
    if (submit.submitter?.id !== "save") return;
    submit.preventDefault();
    submit.submitter.disabled = true;
    say("Saving the outline");
    const drawn = await viewer.saveImage({ filename: "", isSaveDrawing: true, volumeByIndex: 0 });
    const body = new FormData(form);
    body.set("mask", new Blob([drawn]), "drawing.nii.gz");
    const answer = await fetch(form.action, { method: "POST", body, headers: { "accept": "application/json" } });
    if (answer.ok) { location.assign(answer.url); return; }
    submit.submitter.disabled = false;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    say(page.querySelector(".fault h2, .lead")?.textContent ?? "The outline was not saved.");
  });
}

start().catch((error) => {
  console.warn(error);
  canvas.hidden = true;
  picture.hidden = false;
  say("The viewer could not be started; the picture stands in for it.");
});
