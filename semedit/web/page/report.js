"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const list = $("faces"), faces = [...list.children];
  const figures = new Map(faces.map((one) => [one, JSON.parse(one.dataset.figures)]));
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let descending = false, moving = !still.matches;

  /** Faces in order; those without the figure last, whichever way it goes. */
  function sort() {
    const key = $("sort").value, sign = descending ? -1 : 1;
    const value = (one) => figures.get(one)[key];
    faces.sort((a, b) => {
      if (!key) return sign * a.dataset.name.localeCompare(b.dataset.name);
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      return sign * (x - y);
    });
    list.append(...faces);
    for (const one of faces) {
      const found = value(one);
      one.querySelector(".value").textContent = found === undefined ? "" : `${key} ${+found.toPrecision(4)}`;
    }
  }

  function filter() {
    const text = $("find").value.toLowerCase(), command = $("command").value;
    const wanted = [...document.querySelectorAll("[name=status]:checked")].map(({ value }) => value);
    let left = 0;
    for (const one of faces) {
      const { name, status, commands } = one.dataset;
      one.hidden = !(name.toLowerCase().includes(text) && wanted.includes(status) && (!command || commands.split(" ").includes(command)));
      left += !one.hidden;
    }
    $("none").hidden = left > 0;
    $("count").textContent = `${left} of ${faces.length} faces`;
  }

  function play() {
    for (const one of document.querySelectorAll(".turntable")) one.src = moving ? one.dataset.moving : one.dataset.still;
    $("motion").setAttribute("aria-pressed", moving);
  }

  $("sort").onchange = () => {
    descending = $("sort").value !== "";
    $("order").setAttribute("aria-pressed", descending);
    sort();
  };
  $("order").onclick = () => {
    descending = !descending;
    $("order").setAttribute("aria-pressed", descending);
    sort();
  };
  $("find").oninput = $("command").onchange = filter;
  $("controls").onsubmit = (event) => event.preventDefault();
  document.querySelectorAll("[name=status]").forEach((box) => { box.onchange = filter; });
  $("motion").onclick = () => { moving = !moving; play(); };
  $("motion").hidden = !document.querySelector(".turntable");
  list.addEventListener("input", ({ target }) => target.closest(".pair")?.style.setProperty("--cut", `${target.value}%`));
  addEventListener("beforeprint", () => { moving = false; play(); });
  play();
})();
