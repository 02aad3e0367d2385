"use strict";
/* A map of pictures in `root`: what it draws, and what a mouse, a finger or a key does to it. Gives what tests ask for. */
function walkable(root) {
  const find = (selector) => root.querySelector(selector);
  const data = JSON.parse(find(".data").textContent), n = data.names.length;
  const canvas = find("canvas"), ctx = canvas.getContext("2d"), tip = find(".tip"), select = find(".colour");
  const chosen = new Set(), fingers = new Map(), images = [], most = 60, cell = 54;
  let view = { x: 0, y: 0, scale: 1 }, lasso = null, moved = false, here = -1, waiting = false, shown = [];
  const pressed = (name) => find(name).getAttribute("aria-pressed") === "true";

  /* -- colours: choices have names, numbers a range */
  const by = () => data.colours[select.value];
  const hue = (i) => `hsl(${(216 + i * 222.5) % 360} 75% ${45 + 12 * (i % 2)}%)`;
  const heat = (share) => `hsl(${240 - 240 * share} 80% 50%)`;
  const none = (of, value) => value === null || (of.names && value < 0);
  const colour = (of, value) =>
    none(of, value) ? "#999" : of.names ? hue(value) : heat((value - of.low) / Math.max(1e-9, of.high - of.low));
  const word = (of, value) => none(of, value) ? "none" : of.names ? of.names[value] : value.toFixed(3);
  function key() {
    const of = by();
    const item = (...parts) => { const one = document.createElement("li"); one.append(...parts); return one; };
    const swatch = (tag, background) => { const one = document.createElement(tag); one.style.background = background; return one; };
    const scale = () => swatch("b", `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map(heat).join(", ")})`);
    find(".key").replaceChildren(...(of.names
      ? of.names.map((name, i) => item(swatch("i", hue(i)), name))
      : [item(of.low.toFixed(2), scale(), of.high.toFixed(2))]));
  }

  /* -- drawing */
  const ratio = () => window.devicePixelRatio || 1;
  const extent = () => [canvas.width * 0.9 * view.scale, canvas.height * 0.9 * view.scale];
  function place(i) {
    const [w, h] = extent();
    return [canvas.width / 2 + (data.x[i] - 0.5 - view.x) * w, canvas.height / 2 + (data.y[i] - 0.5 - view.y) * h];
  }
  function image(i) {
    if (!images[i]) {
      images[i] = new Image();
      images[i].onload = later;
      images[i].src = "data:image/webp;base64," + data.thumbnails[i];
    }
    return images[i];
  }
  function later() {
    if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); }
  }
  function dot(i, [x, y], radius, fill) {
    ctx.fillStyle = fill;
    ctx.beginPath(); ctx.arc(x, y, i === here ? 2 * radius : radius, 0, 7); ctx.fill();
    if (chosen.has(i) || i === here) { ctx.lineWidth = 2 * ratio(); ctx.strokeStyle = "#d62728"; ctx.stroke(); }
  }
  function framed(i, [x, y], fill) {
    const picture = image(i);
    if (!picture.complete || !picture.naturalWidth) return;
    const scale = (cell - 8) * ratio() / Math.max(picture.naturalWidth, picture.naturalHeight), edge = 2 * ratio();
    const w = picture.naturalWidth * scale, h = picture.naturalHeight * scale;
    ctx.fillStyle = chosen.has(i) || i === here ? "#d62728" : fill;
    ctx.imageSmoothingEnabled = scale < 2 * ratio();
    ctx.fillRect(x - w / 2 - edge, y - h / 2 - edge, w + 2 * edge, h + 2 * edge);
    ctx.drawImage(picture, x - w / 2, y - h / 2, w, h);
    shown.push({ i, x, y, w: w / 2 + edge, h: h / 2 + edge });
  }
  function draw() {
    const box = canvas.getBoundingClientRect(), edge = 9 * ratio(), of = by(), fill = (i) => colour(of, of.values[i]);
    canvas.width = box.width * ratio(); canvas.height = box.height * ratio();
    const radius = Math.max(2, Math.min(7, 90 / Math.sqrt(n)) * Math.sqrt(view.scale)) * ratio();
    const side = cell * ratio(), cells = new Map(), pictures = pressed(".pictures");
    shown = [];
    for (let i = 0; i < n; i++) {
      const [x, y] = place(i);
      if (x < -edge || y < -edge || x > canvas.width + edge || y > canvas.height + edge) continue;
      dot(i, [x, y], radius, fill(i));
      if (!pictures || !data.thumbnails[i]) continue;
      const [column, row] = [Math.floor(x / side), Math.floor(y / side)], name = column + " " + row;
      const away = Math.hypot(x / side - column - 0.5, y / side - row - 0.5);
      if (!cells.has(name) || away < cells.get(name)[1]) cells.set(name, [i, away]);
    }
    for (const [i] of cells.values()) framed(i, place(i), fill(i)); // in each cell of a grid, what is nearest to its middle
    if (here >= 0) dot(here, place(here), radius, fill(here));
    if (lasso) {
      ctx.beginPath(); lasso.forEach(([x, y], k) => k ? ctx.lineTo(x, y) : ctx.moveTo(x, y));
      ctx.lineWidth = 2 * ratio(); ctx.strokeStyle = "#d62728"; ctx.stroke();
    }
  }

  /* -- one picture, and the selection */
  function at(event) {
    const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }
  function pointed([x, y]) { // the picture on top there, else the nearest dot
    const over = shown.findLast((one) => Math.abs(one.x - x) <= one.w && Math.abs(one.y - y) <= one.h);
    if (over) return over.i;
    let best = -1, least = (18 * ratio()) ** 2;
    for (let i = 0; i < n; i++) {
      const [a, b] = place(i), away = (a - x) ** 2 + (b - y) ** 2;
      if (away < least) { least = away; best = i; }
    }
    return best;
  }
  function show(i, x, y) {
    here = i; tip.hidden = i < 0;
    if (i >= 0) {
      const said = `${data.names[i]} · ${select.value}: ${word(by(), by().values[i])}`;
      tip.replaceChildren();
      if (data.thumbnails[i]) {
        const copy = new Image();
        copy.alt = "";
        copy.onload = () => { copy.className = Math.max(copy.naturalWidth, copy.naturalHeight) < 40 ? "small" : ""; };
        copy.src = image(i).src; tip.append(copy);
      }
      tip.append(said);
      tip.style.left = Math.max(0, Math.min(x + 14, document.documentElement.clientWidth - 215)) + "px";
      tip.style.top = (y + 14 + tip.offsetHeight > window.innerHeight ? y - 14 - tip.offsetHeight : y + 14) + "px";
      find(".said").textContent = said;
    }
    later();
  }
  function list() {
    find("textarea").value = [...chosen].map((i) => data.names[i]).join("\n");
    find(".chosen").hidden = !chosen.size;
    find(".count").textContent = `${chosen.size} picture${chosen.size === 1 ? "" : "s"} selected`;
    draw();
  }
  function inside([x, y], polygon) {
    let found = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [a, b] = polygon[i], [c, d] = polygon[j];
      if ((b > y) !== (d > y) && x < (c - a) * (y - b) / (d - b) + a) found = !found;
    }
    return found;
  }

  /* -- moving */
  function zoom(factor, [x, y]) {
    const [w, h] = extent(), dx = (x - canvas.width / 2) / w, dy = (y - canvas.height / 2) / h;
    const scale = Math.max(0.5, Math.min(most, view.scale * factor)), change = 1 - view.scale / scale;
    view = { x: view.x + dx * change, y: view.y + dy * change, scale }; later();
  }
  function middle() {
    const all = [...fingers.values()], [x, y] = [0, 1].map((axis) => all.reduce((sum, p) => sum + p[axis], 0) / all.length);
    return { x, y, apart: all.length > 1 ? Math.hypot(all[0][0] - all[1][0], all[0][1] - all[1][1]) : 0 };
  }
  function drag(id, point) {
    const before = middle();
    fingers.set(id, point);
    const after = middle(), [w, h] = extent();
    moved = moved || Math.hypot(after.x - before.x, after.y - before.y) > 1;
    view.x -= (after.x - before.x) / w; view.y -= (after.y - before.y) / h;
    if (before.apart && after.apart) zoom(after.apart / before.apart, [after.x, after.y]); else later();
  }
  function step(dx, dy) {
    const from = here < 0 ? [canvas.width / 2, canvas.height / 2] : place(here), box = canvas.getBoundingClientRect();
    let best = here, least = Infinity;
    for (let i = 0; i < n; i++) {
      const [x, y] = place(i), along = (x - from[0]) * dx + (y - from[1]) * dy;
      const across = Math.abs((x - from[0]) * dy) + Math.abs((y - from[1]) * dx);
      if (i !== here && along > 0 && along + 3 * across < least) { least = along + 3 * across; best = i; }
    }
    if (best < 0) return;
    let [x, y] = place(best);
    if (x < 0 || y < 0 || x > canvas.width || y > canvas.height) { // follow it
      view.x = data.x[best] - 0.5; view.y = data.y[best] - 0.5; [x, y] = place(best);
    }
    show(best, box.left + x * box.width / canvas.width, box.top + y * box.height / canvas.height);
  }

  /* -- events */
  const on = (element, name, does, options) => element.addEventListener(name, does, options);
  on(canvas, "wheel", (e) => { // of a page that is longer than the map, until the map is asked for
    if (document.activeElement !== canvas && !e.ctrlKey && !e.metaKey) return;
    e.preventDefault(); zoom(Math.exp(-e.deltaY / 400), at(e));
  }, { passive: false });
  on(canvas, "pointerdown", (e) => {
    if (e.button) return;
    canvas.setPointerCapture(e.pointerId);
    moved = false;
    if (pressed(".mode") || e.shiftKey) lasso = [at(e)]; else fingers.set(e.pointerId, at(e));
  });
  on(canvas, "pointermove", (e) => {
    if (lasso) { lasso.push(at(e)); later(); }
    else if (fingers.has(e.pointerId)) drag(e.pointerId, at(e));
    else show(pointed(at(e)), e.clientX, e.clientY);
  });
  function up(e) {
    if (lasso) { for (let i = 0; i < n; i++) if (inside(place(i), lasso)) chosen.add(i); lasso = null; list(); }
    else if (!moved && fingers.size === 1 && e.type === "pointerup") show(pointed(at(e)), e.clientX, e.clientY);
    fingers.delete(e.pointerId);
  }
  on(canvas, "pointerup", up); on(canvas, "pointercancel", up);
  on(canvas, "pointerleave", (e) => { if (e.pointerType === "mouse") show(-1); });
  const away = () => { tip.hidden = true; };
  on(canvas, "blur", away); on(window, "scroll", away, { passive: true });
  on(canvas, "keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return; // the browser's
    const moves = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    if (e.key === "+" || e.key === "-") zoom(e.key === "+" ? 1.4 : 1 / 1.4, [canvas.width / 2, canvas.height / 2]);
    else if (e.key === "Enter" && here >= 0) { chosen.delete(here) || chosen.add(here); list(); }
    else if (moves[e.key]) step(...moves[e.key]);
    else return;
    e.preventDefault();
  });
  for (const name of [".mode", ".pictures"])
    on(find(name), "click", () => {
      find(name).setAttribute("aria-pressed", String(!pressed(name)));
      canvas.classList.toggle("lasso", pressed(".mode")); draw();
    });
  on(find(".reset"), "click", () => { view = { x: 0, y: 0, scale: 1 }; draw(); });
  on(find(".clear"), "click", () => { chosen.clear(); list(); });
  on(find(".copy"), "click", () => { find("textarea").select(); document.execCommand("copy"); });
  on(select, "change", () => { key(); draw(); });
  on(window, "resize", draw);
  on(find("details"), "toggle", () => {
    const table = find("table"), names = Object.keys(data.colours);
    if (table.rows.length) return;
    const head = table.createTHead().insertRow(), body = table.createTBody();
    for (const name of ["name", ...names]) {
      const cell = document.createElement("th"); cell.scope = "col"; cell.textContent = name; head.append(cell);
    }
    data.names.forEach((name, i) => {
      const row = body.insertRow(); row.insertCell().textContent = name;
      for (const of of Object.values(data.colours)) row.insertCell().textContent = word(of, of.values[i]);
    });
  });
  for (const name of Object.keys(data.colours)) select.add(new Option(name, name));
  key(); draw();
  return { place, view: () => view, here: () => here };
}
const walked = walkable(document.querySelector(".map"));
