// The page of `semedit paint`: what is on it, what is undone, what is asked of the server.
//
// `chain` is the list of edits so far and is never changed, only replaced, so that undo is a list
// of chains. An edit is {step, labels, base}: step as the server takes it, labels the map after it.

import { LabelMap, png, same } from "./map.js";

const $ = (id) => document.getElementById(id);
const UNDOS = 200, MANY = 12, ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];

let offers, face, index, start, map;
let chain = [], past = [], future = [];
let tool = "brush", label = 11, zoom = 0, stroke = null, cursor = null;
let running = null, shown = null, inverted = null, commands = [], saving = false;

// Asking ------------------------------------------------------------------------------------------

async function get(path) {
  const answer = await fetch(path);
  const found = await answer.json();
  if (!answer.ok) throw new Error(sentence(found.error));
  return found;
}

/** Post, and read lines of progress up to the last one. */
async function post(path, asked, signal, progress = () => {}) {
  const answer = await fetch(path, {
    method: "POST", signal, headers: { "content-type": "application/json" }, body: JSON.stringify(asked),
  });
  if (!answer.ok) throw new Error(`the server refuses this (${answer.status})`);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    text += value ?? "";
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines.map((one) => JSON.parse(one))) {
      if (line.progress) progress(...line.progress);
      if (line.error) throw new Error(sentence(line.error));
      if (line.done) return line.done;
    }
    if (done) throw new Error("the answer ended early: is semedit paint still running?");
  }
}

const sentence = ({ message, hint }) => (hint ? `${message} (${hint})` : message);
const unpacked = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// Telling -----------------------------------------------------------------------------------------

const say = (text) => { $("status").textContent = text; };

function tell(text, kind = "bad") {
  $("told").hidden = !text;
  $("told").className = `note ${kind}`;
  $("told").textContent = text;
}

function busy(on) {
  $("busy").hidden = !on;
  document.body.classList.toggle("waiting", on);
  if (!on) $("progress").removeAttribute("value");
}

/** A bar that moves as the server tells; nothing for what is over before one looks. */
const advance = (done, total) => { $("progress").max = total; $("progress").value = done; };

// Faces -------------------------------------------------------------------------------------------

let opened = 0; // how often a face was chosen

async function open(i) {
  running?.abort();
  const mine = ++opened;
  const found = await get(`faces/${i}`);
  if (mine !== opened) return; // another face was chosen meanwhile
  [index, face] = [i, found];
  $("photograph").src = `faces/${i}/photograph.png`;
  $("photograph").alt = `The photograph of ${found.name}`;
  document.querySelectorAll("#faces button").forEach((b, k) => b.setAttribute("aria-current", k === i));
  $("start").replaceChildren(...found.starts.map((name) => option(name, name === "latents" ? "inversion" : name)));
  $("start").value = found.newest;
  $("donor").replaceChildren(
    option("", "a random texture"),
    ...offers.faces.filter((name) => name !== found.name).map((name) => option(name, name)),
  );
  $("invert-first").hidden = found.inverted;
  $("start").disabled = !found.inverted;
  $("saved").hidden = true;
  for (const id of ["result", "beside"]) $(id).removeAttribute("src");
  document.title = `${found.name} - semedit paint`;
  if (found.inverted) await begin(found.newest);
  else {
    [chain, past, future, start, inverted] = [[], [], [], null, null];
    showMap();
    refresh();
    say(`${found.name}: invert this face first`);
  }
}

/** Start a new chain from the inversion or a step. */
async function begin(from) {
  [chain, past, future, start, shown] = [[], [], [], from, null];
  inverted = null;
  map.show(new Uint8Array(face.size ** 2));
  $("map").hidden = true; // until its labels are there
  await edit();
  refresh();
}

async function invert() {
  const made = await work((signal) => post(`faces/${index}/invert`, {}, signal, advance), "Inverting …");
  if (made) await open(index);
}

/** Run what takes long with a bar and a way to cancel; undefined where it failed or was cancelled. */
async function work(run, saying) {
  running?.abort();
  const own = (running = new AbortController());
  const late = setTimeout(() => busy(true), 300);
  tell("");
  say(saying);
  try {
    const found = await run(own.signal);
    say("Ready");
    return found;
  } catch (error) {
    if (own.signal.aborted) {
      if (running === own) say("Cancelled"); // else a newer question took its place
    } else {
      say("That did not work");
      tell(error.message);
    }
    return undefined;
  } finally {
    clearTimeout(late);
    if (running === own) {
      running = null;
      busy(false);
    }
  }
}

// Edits -------------------------------------------------------------------------------------------

const last = () => chain.at(-1);
const labelsNow = () => last()?.labels ?? (chain.length ? null : inverted?.labels ?? null);
const baseNow = () => (last()?.base ?? labelsNow());

/** Put another chain in the place of this one, which undo gives back. */
function replace(next, remember = true) {
  if (remember) {
    past = [...past.slice(1 - UNDOS), chain];
    future = [];
  }
  chain = next;
  $("saved").hidden = true;
  refresh();
}

function step(from, to) {
  if (!from.length) return;
  to.push(chain);
  chain = from.pop();
  showMap();
  refresh();
  edit();
}

/** Ask for the picture of the chain; a newer question takes the place of an older one. */
async function edit(began = performance.now()) {
  if (start === null) return;
  const asked = chain, saying = asked.length ? "Editing …" : "Loading the face …";
  const found = await work(async (signal) => {
    for (const one of asked) await upload(one);
    const [yaw_deg, pitch_deg] = [+$("yaw").value, +$("pitch").value];
    const question = { start, chain: asked.map((one) => one.step), yaw_deg, pitch_deg };
    return post(`faces/${index}/edit`, question, signal, advance);
  }, saying);
  if (!found || chain !== asked) return;
  const labels = unpacked(found.now), own = +$("yaw").value === 0 && +$("pitch").value === 0;
  if (!asked.length) inverted = { labels, picture: own ? found.picture : inverted?.picture ?? found.picture };
  else if (asked.at(-1).step.kind !== "mask") asked.at(-1).labels = labels;
  if (!stroke) showMap();
  shown = found.picture;
  commands = found.commands;
  if (found.warnings.length) tell(found.warnings.join("; "), "warn");
  await picture();
  const ms = performance.now() - began;
  $("result").dataset.ms = Math.round(ms);
  $("result").dataset.edits = asked.length;
  $("seconds").textContent = asked.length ? `${(ms / 1000).toFixed(1)} s` : "";
  say(asked.length ? `Edited in ${(ms / 1000).toFixed(1)} s` : "Ready: paint on the map");
  refresh();
}

/** Send a drawn map that the server has not seen. */
async function upload(one) {
  if (one.step.kind !== "mask" || one.step.map) return;
  const colours = offers.labels.map(({ colour }) => colour);
  const answer = await fetch(`faces/${index}/maps`, { method: "POST", body: await png(one.labels, colours) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(sentence(found.error));
  one.step.map = found.map;
}

async function picture() {
  const before = $("before").getAttribute("aria-pressed") === "true";
  const url = before ? inverted?.picture : shown;
  if (!url) return;
  $("result").src = $("beside").src = url;
  await $("result").decode().catch(() => {});
}

function showMap() {
  const labels = labelsNow();
  if (labels) map.show(labels, baseNow());
  if (labels || start === null) $("map").hidden = !labels; // the photograph alone
}

/** Take what was painted as the last edit. */
function drawn() {
  const labels = map.labels.slice(), base = map.base;
  const before = last()?.step.kind === "mask" ? chain.slice(0, -1) : chain;
  if (same(labels, labelsNow())) return;
  if (same(labels, base)) replace(before);
  else replace([...before, { step: { kind: "mask", finish: !offers.live }, labels, base }]);
  edit();
}

function add(given) {
  replace([...chain, { step: given }]);
  edit();
}

/** Directions at the end of the chain are one place: a slider moves its own. */
function lean(name, strength, remember) {
  let first = chain.length;
  while (first && chain[first - 1].step.kind === "direction") first--;
  const others = chain.slice(first).filter((one) => one.step.name !== name);
  const moved = strength ? [{ step: { kind: "direction", name, strength } }] : [];
  replace([...chain.slice(0, first), ...others, ...moved], remember);
  edit();
}

function finish() {
  const { labels, base } = last();
  replace([...chain.slice(0, -1), { step: { kind: "mask", finish: true }, labels, base }]);
  edit();
}

async function save() {
  if (!chain.length || saving) return;
  saving = true;
  refresh();
  const question = { start, chain: chain.map((one) => one.step) };
  const found = await work((signal) => post(`faces/${index}/save`, question, signal, advance), "Saving …");
  saving = false;
  if (found) {
    commands = found.commands;
    const pictures = found.files.filter((path) => path.endsWith(".png") && !path.endsWith(".labels.png"));
    $("saved").textContent = `Saved ${pictures.join(", ")}`;
    $("saved").hidden = false;
    say(`Saved as ${found.steps.at(-1)}`);
    const name = found.steps.at(-1).slice(face.name.length + 1);
    for (const one of found.steps.map((path) => path.slice(face.name.length + 1))) {
      if (![...$("start").options].some(({ value }) => value === one)) $("start").append(option(one, one));
    }
    $("saved").dataset.step = name;
    if (found.warnings.length) tell(found.warnings.join("; "), "warn");
  }
  refresh();
}

// The page ----------------------------------------------------------------------------------------

function option(value, text) {
  const made = document.createElement("option");
  [made.value, made.textContent] = [value, text];
  return made;
}

const plain = (name) => name.replaceAll("_", " ");

function called({ kind, name, strength, wanted, region, regions, seed, donor, finish: done }) {
  switch (kind) {
    case "mask": return done ? "drawing, finished" : "drawing";
    case "direction": return `${plain(name)} ${strength > 0 ? "+" : "−"}${Math.abs(strength)}`;
    case "attribute": return `${wanted ? "" : "not "}${plain(name)}`;
    case "texture": return `${region} texture ${donor ? `of ${donor}` : seed}`;
    default: return `${regions} of ${donor}`;
  }
}

/** Buttons and lists as the state has them. */
function refresh() {
  const ready = start !== null && !saving;
  $("undo").disabled = saving || !past.length;
  $("redo").disabled = saving || !future.length;
  $("save").disabled = !ready || !chain.length;
  $("finish").disabled = !ready || !offers.finishes || last()?.step.kind !== "mask" || last().step.finish;
  for (const id of ["before", "give", "take", "texture"]) $(id).disabled = !ready;
  for (const id of ["yaw", "pitch"]) $(id).disabled = start === null;
  $("transfer").disabled = !ready || !$("donor").value || !offers.transfers;
  $("seed-label").hidden = Boolean($("donor").value);
  $("chain").replaceChildren(...chain.map((one) => {
    const made = document.createElement("li");
    made.textContent = called(one.step);
    return made;
  }));
  $("commands").hidden = !chain.length;
  $("commands").querySelector("pre").textContent = commands.join("\n");
  const strengths = new Map();
  for (const { step: one } of chain.toReversed()) {
    if (one.kind !== "direction") break;
    strengths.set(one.name, one.strength);
  }
  for (const input of $("sliders").querySelectorAll("input")) {
    input.disabled = !ready;
    if (document.activeElement !== input || !input.dataset.held) input.value = strengths.get(input.name) ?? 0;
    input.previousElementSibling.textContent = (+input.value).toFixed(1);
  }
}

function choose(name) {
  tool = name;
  document.querySelectorAll("[data-tool]").forEach((b) => b.setAttribute("aria-pressed", b.dataset.tool === name));
  $("pointer").classList.toggle("picking", name === "pick" || name === "fill");
  ring();
}

function chooseLabel(i) {
  label = i;
  const input = $("labels").querySelectorAll("input")[i], list = $("labels");
  input.checked = true;
  list.scrollLeft = input.parentElement.offsetLeft - list.clientWidth / 2; // where it is one line
}

function zoomTo(level) {
  const stage = $("stage"), before = ZOOMS[zoom];
  const middle = [stage.scrollLeft + stage.clientWidth / 2, stage.scrollTop + stage.clientHeight / 2];
  zoom = Math.min(ZOOMS.length - 1, Math.max(0, level));
  const factor = ZOOMS[zoom] / before;
  $("sheet").style.width = `${100 * ZOOMS[zoom]}%`;
  $("zoom-said").textContent = `${100 * ZOOMS[zoom]} %`;
  stage.scrollTo(middle[0] * factor - stage.clientWidth / 2, middle[1] * factor - stage.clientHeight / 2);
  ring();
}

/** The outline of the brush where the pointer is. */
function ring() {
  const canvas = $("pointer"), box = canvas.getBoundingClientRect(), dense = devicePixelRatio;
  if (canvas.width !== Math.round(box.width * dense)) {
    [canvas.width, canvas.height] = [Math.round(box.width * dense), Math.round(box.height * dense)];
  }
  const context = canvas.getContext("2d"), unit = canvas.width / map.size;
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!cursor || tool === "pick" || tool === "fill") return;
  for (const [colour, width] of [["#000", 3 * dense], ["#fff", 1.5 * dense]]) {
    context.beginPath();
    context.arc(cursor[0] * unit, cursor[1] * unit, Math.max(2, (+$("size").value / 2) * unit), 0, 2 * Math.PI);
    [context.strokeStyle, context.lineWidth] = [colour, width];
    context.stroke();
  }
}

const place = (event) => {
  const box = $("pointer").getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * map.size, ((event.clientY - box.top) / box.height) * map.size];
};

/** Apply the tool at a place, or along the way to it. */
function dab(x, y, from = [x, y]) {
  if (tool === "pick") { if (map.at(x, y) !== null) chooseLabel(map.at(x, y)); }
  else if (tool === "fill") map.fill(x, y, label);
  else map.stroke(...from, x, y, +$("size").value, tool === "erase" ? null : label);
}

function painting() {
  const canvas = $("pointer"), fingers = new Map();
  let pinch = 0;
  const able = () => start !== null && !saving && labelsNow() !== null && offers.draws;
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
  };
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, event);
    if (fingers.size === 2) { // two fingers move the sheet: what the first one began is taken back
      if (stroke) { stroke = null; showMap(); }
      pinch = spread();
      return;
    }
    if (event.button !== 0 || !able() || fingers.size > 1) return;
    canvas.setPointerCapture(event.pointerId);
    stroke = cursor = place(event);
    dab(...stroke);
    ring();
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (before) fingers.set(event.pointerId, event);
    if (fingers.size === 2) {
      $("stage").scrollBy(before.clientX - event.clientX, before.clientY - event.clientY);
      const ratio = spread() / pinch;
      if (ratio > 1.3 || ratio < 0.77) { zoomTo(zoom + (ratio > 1 ? 1 : -1)); pinch = spread(); }
      return;
    }
    cursor = place(event);
    if (stroke && (tool === "brush" || tool === "erase")) {
      for (const one of event.getCoalescedEvents?.() ?? [event]) {
        const to = place(one);
        dab(...to, stroke);
        stroke = to;
      }
    }
    ring();
  });
  const end = (event) => {
    fingers.delete(event.pointerId);
    if (!stroke) return;
    stroke = null;
    if (tool !== "pick") drawn();
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => { if (!stroke) { cursor = null; ring(); } });
  const middle = () => [map.size / 2, map.size / 2];
  canvas.addEventListener("focus", () => {
    if (canvas.matches(":focus-visible")) cursor ??= middle();
    ring();
  });
  canvas.addEventListener("keydown", (event) => {
    const by = event.shiftKey ? 10 : 2;
    const moves = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
    if (moves[event.key]) {
      cursor = (cursor ?? middle()).map((v, i) => Math.min(map.size - 1, Math.max(0, v + moves[event.key][i])));
    } else if ((event.key === "Enter" || event.key === " ") && able()) {
      cursor ??= middle();
      dab(...cursor);
      if (tool !== "pick") drawn();
    } else return;
    event.preventDefault();
    ring();
  });
  $("stage").addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoomTo(zoom + (event.deltaY < 0 ? 1 : -1));
  }, { passive: false });
  new ResizeObserver(ring).observe(canvas);
}

function keys() {
  const plainKeys = {
    b: () => choose("brush"), e: () => choose("erase"), f: () => choose("fill"), p: () => choose("pick"),
    c: () => $("before").click(), "+": () => zoomTo(zoom + 1), "-": () => zoomTo(zoom - 1),
    "[": () => resize(-2), "]": () => resize(2),
  };
  const controlled = { z: undo, y: redo, s: save };
  addEventListener("keydown", (event) => {
    if (event.target.matches("input[type=number], input[type=search], select") || event.altKey) return;
    const control = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
    const action = control ? (key === "z" && event.shiftKey ? redo : controlled[key]) : plainKeys[key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

const undo = () => { if (!saving) step(past, future); };
const redo = () => { if (!saving) step(future, past); };

function resize(by) {
  $("size").value = +$("size").value + by;
  $("size-said").textContent = $("size").value;
  ring();
}

function controls() {
  document.querySelectorAll("[data-tool]").forEach((b) => b.addEventListener("click", () => choose(b.dataset.tool)));
  $("undo").onclick = undo;
  $("redo").onclick = redo;
  $("save").onclick = save;
  $("finish").onclick = finish;
  $("invert").onclick = invert;
  $("cancel").onclick = () => {
    running?.abort();
    if (past.length && !saving && chain.length) step(past, future);
  };
  $("opacity").oninput = () => { $("map").style.opacity = $("opacity").value / 100; };
  $("size").oninput = () => resize(0);
  $("larger").onclick = () => zoomTo(zoom + 1);
  $("smaller").onclick = () => zoomTo(zoom - 1);
  $("start").onchange = () => begin($("start").value);
  $("donor").onchange = refresh;
  $("before").onclick = () => {
    $("before").setAttribute("aria-pressed", $("before").getAttribute("aria-pressed") !== "true");
    picture();
  };
  for (const id of ["yaw", "pitch"]) {
    $(id).oninput = () => {
      $(`${id}-said`).textContent = $(id).value;
      edit();
    };
  }
  for (const [id, wanted] of [["give", true], ["take", false]]) {
    $(id).onclick = () => add({ kind: "attribute", name: $("attribute").value, wanted });
  }
  $("texture").onclick = () => add({
    kind: "texture", region: $("region").value,
    ...($("donor").value ? { donor: $("donor").value } : { seed: +$("seed").value }),
  });
  $("transfer").onclick = () => add({ kind: "transfer", regions: $("region").value, donor: $("donor").value });
  $("copy").onclick = async () => {
    await navigator.clipboard.writeText(commands.join("\n"));
    say("Copied");
  };
  addEventListener("beforeunload", (event) => { if (saving) event.preventDefault(); });
}

function sliders(names) {
  $("directions").hidden = !names.length;
  $("sliders").append(...names.map((name) => {
    const made = document.createElement("label"), said = document.createElement("span"); // an <output> would take the label
    const input = Object.assign(document.createElement("input"), { type: "range", name, min: -3, max: 3, step: 0.5, value: 0 });
    [said.textContent, said.ariaHidden] = ["0.0", "true"]; // the slider tells its value itself
    let fresh = true;
    input.oninput = () => {
      said.textContent = (+input.value).toFixed(1);
      input.dataset.held = "yes";
      lean(name, +input.value, fresh);
      fresh = false;
    };
    input.onchange = () => { fresh = true; delete input.dataset.held; };
    made.append(plain(name), said, input);
    return made;
  }));
}

function labels() {
  $("labels").append(...offers.labels.map(({ name, colour }, i) => {
    const made = document.createElement("label"), swatch = document.createElement("span");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "label", value: i });
    input.onchange = () => { label = i; if (tool !== "fill") choose("brush"); };
    swatch.className = "swatch";
    swatch.style.background = `rgb(${colour.join(" ")})`;
    made.append(input, swatch, name);
    return made;
  }));
  chooseLabel(label);
}

async function main() {
  offers = await get("faces");
  map = new LabelMap($("map"), offers.labels.map(({ colour }) => colour));
  labels();
  sliders(offers.directions);
  $("faces").append(...offers.faces.map((name, i) => {
    const item = document.createElement("li"), made = document.createElement("button"), text = document.createElement("span");
    const image = Object.assign(new Image(), { src: `faces/${i}/thumbnail.webp`, alt: "", loading: "lazy" });
    text.textContent = name;
    made.title = name;
    made.append(image, text);
    made.onclick = () => open(i).catch(failed);
    item.append(made);
    return item;
  }));
  $("find").hidden = offers.faces.length <= MANY;
  $("find").oninput = () => {
    const text = $("find").value.toLowerCase();
    [...$("faces").children].forEach((item, i) => { item.hidden = !offers.faces[i].toLowerCase().includes(text); });
  };
  $("attribute").append(...offers.attributes.map((name) => option(name, plain(name))));
  $("attribute").value = "smiling";
  $("region").append(...offers.regions.map((name) => option(name, name)));
  $("region").value = "hair";
  $("regions").hidden = !offers.textures && !offers.transfers;
  $("texture").hidden = !offers.textures;
  $("views").hidden = !offers.view_deg;
  ["yaw", "pitch"].forEach((id, i) => {
    const most = offers.view_deg?.[i] ?? 0;
    Object.assign($(id), { min: -most, max: most, step: 1, value: 0 });
  });
  $("map").style.opacity = $("opacity").value / 100;
  controls();
  painting();
  keys();
  await open(0);
}

const failed = (error) => { say("That did not work"); tell(error.message); };
main().catch(failed);
