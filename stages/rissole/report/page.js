"use strict";

const { rows, train } = JSON.parse(document.getElementById("data").textContent);
const detail = document.getElementById("detail");
const part = (name) => document.getElementById(`detail-${name}`);
const shot = (row, sample) =>
  document.querySelector(`button[data-row="${row}"][data-sample="${sample}"]`);
let row = 0;
let sample = 0;

// Elements are built from text, never from markup, so that no name can become any.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const shown = ({ src, name, id }, alt) =>
  element("img", { src, alt: `${alt}: ${name}`, title: `train image ${id}` });

function picture(image, title, lines, cuts) {
  const frame = element("div", { class: "cut", style: `--cuts:${cuts}` }, image);
  const caption = element("figcaption", {}, element("b", {}, title));
  lines.forEach((line) => caption.append(element("div", {}, line)));
  return element("figure", {}, frame, caption);
}

function thumb(image, head, line) {
  return element("li", {}, image, element("span", {}, element("b", {}, head), ` ${line}`));
}

// Where blocks wait for each other, each turn takes all steps.
const each = ({ steps, turns }) =>
  turns > 1 ? `${turns} × ${steps.at(-1) / turns}` : `${steps.at(-1)}`;

const VERDICTS = {
  yes: "Named a copy: in whole or in a block, it is nearer to a training image than nearly all"
    + " held-out images are.",
  no: "Not named a copy: no test finds it, or a block of it, nearer to a training image than nearly"
    + " all held-out images are.",
  unknown: "No test names it a copy, but none vouches for it: the row is accused as a whole, or its"
    + " blocks cannot be told from copies.",
};

function show() {
  const of = rows[row];
  const seen = of.samples[sample];
  const { src } = shot(row, sample).querySelector("img");
  const drawn = (alt) => element("img", { src, alt });
  part("title").textContent = `${of.name}, image ${seen.number}`;
  part("about").textContent = of.about;
  part("verdict").className = seen.copied === "yes" ? "copied" : "";
  part("verdict").textContent = VERDICTS[seen.copied];
  showPictures(of, seen, drawn);
  showNeighbours(seen);
  showPath(of, seen.path, drawn);
  part("source").textContent =
    `data/shown/${of.name}.parquet; python stages/trace_sample.py ${of.name} ${seen.number}`;
}

function showPictures(of, seen, drawn) {
  const [nearest, distance] = seen.nearest;
  const count = new Set(seen.blocks.map(([image]) => image)).size;
  const sources = `of ${count} training ${count > 1 ? "images" : "image"}`;
  const cuts = Math.round(Math.sqrt(seen.blocks.length));
  const distances = seen.blocks.map(([, far]) => far);
  const sorted = distances.toSorted((one, other) => one - other);
  const pictures = [
    picture(
      drawn(`Drawn: ${of.name}, image ${seen.number}`),
      "Drawn",
      [`${each(of)} steps of ${seen.sampler}, seed ${seen.seed}`],
      of.drawnIn,
    ),
    picture(
      shown(train[nearest], "Nearest training image"),
      "Nearest training image",
      [train[nearest].name, `distance ${distance}`],
      cuts,
    ),
    picture(
      element("img", { src: seen.mosaic, alt: "Mosaic of the nearest training blocks" }),
      "Nearest blocks",
      [
        seen.query === null ? sources : `${sources}, the query left out`,
        `distances ${cuts > 2 ? `${sorted[0]} to ${sorted.at(-1)}` : distances.join(", ")}`,
      ],
      cuts,
    ),
  ];
  if (seen.query !== null) {
    const query = train[seen.query];
    pictures.push(picture(shown(query, "Query image"), "Query", [query.name], cuts));
  }
  part("pictures").replaceChildren(...pictures);
}

function showNeighbours(seen) {
  const left = seen.retrieved - seen.neighbours.length;
  part("neighbours-part").hidden = seen.query === null;
  part("told").textContent =
    `The query's neighbours by rank, with their cosine${left > 0 ? `; ${left} more are not shown` : ""}.`;
  part("neighbours").replaceChildren(
    ...seen.neighbours.map(([image, cosine], place) =>
      thumb(shown(train[image], `Neighbour ${place + 1}`), place + 1, cosine)),
  );
}

function showPath(of, path, drawn) {
  const { steps } = of;
  const total = steps.at(-1);
  const before = path.map((src, place) => {
    const step = steps[place];
    return thumb(element("img", { src, alt: `After step ${step}` }), step, "");
  });
  part("steps").textContent =
    `As it stands after some of ${each(of)} steps, shown as if it were clean.`;
  part("path").replaceChildren(
    ...before,
    thumb(drawn(`After step ${total}, the end`), total, "done"),
  );
}

function open(button) {
  row = Number(button.dataset.row);
  sample = Number(button.dataset.sample);
  show();
  detail.showModal();
  detail.scrollTop = 0;
  part("title").focus();
}

function move(by) {
  const count = rows[row].samples.length;
  sample = (sample + by + count) % count;
  show();
}

function reach(button) {
  const group = button.closest(".shots");
  group.querySelectorAll("button").forEach((other) => { other.tabIndex = other === button ? 0 : -1; });
  button.focus();
}

// The button a step away: up and down within the lines of a grid, then on to the next row's.
function beside(r, s, down, right) {
  const grid = getComputedStyle(shot(r, s).closest(".shots"));
  const columns = grid.gridTemplateColumns.split(" ").length;
  const within = shot(r, s + right + down * columns);
  if (within || right) return within;
  const count = rows[r + down]?.samples.length ?? 0;
  const last = Math.floor((count - 1) / columns) * columns;
  return shot(r + down, Math.min((down < 0 ? last : 0) + (s % columns), count - 1));
}

const ways = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

document.querySelector(".rows").addEventListener("click", (event) => {
  const button = event.target.closest("button[data-row]");
  if (button) open(button);
});

document.querySelector(".rows").addEventListener("keydown", (event) => {
  const way = ways[event.key];
  const { row: r, sample: s } = event.target.dataset;
  if (!way || r === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const next = beside(Number(r), Number(s), ...way);
  if (next) reach(next);
});

detail.addEventListener("keydown", (event) => {
  const [, by] = ways[event.key] ?? [0, 0];
  if (!by || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  move(by);
});

detail.addEventListener("click", (event) => {
  const { move: by, close } = event.target.dataset;
  if (by) move(Number(by));
  if (close !== undefined || event.target === detail) detail.close();
});

detail.addEventListener("close", () => reach(shot(row, sample)));

document.querySelectorAll("[data-borders]").forEach((box) => {
  box.addEventListener("change", () => {
    document.body.classList.toggle("borders", box.checked);
    document.querySelectorAll("[data-borders]").forEach((other) => { other.checked = box.checked; });
  });
});

const dag = document.querySelector(".dag");
dag.querySelectorAll("li").forEach((stage) => {
  const mine = [...dag.querySelectorAll("path")].filter(
    ({ dataset }) => [dataset.start, dataset.end].includes(stage.dataset.stage),
  );
  const light = (lit) => {
    dag.classList.toggle("some", lit);
    mine.forEach((arc) => arc.classList.toggle("lit", lit));
  };
  stage.addEventListener("pointerenter", () => light(true));
  stage.addEventListener("pointerleave", () => light(false));
});
