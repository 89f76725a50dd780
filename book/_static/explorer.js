// The explorer: draws what agents predict from the numbers in the page.  No library, no network.
(() => {
  "use strict";
  const place = document.getElementById("explorer-view");
  const source = document.getElementById("explorer-data");
  if (!place || !source) return;
  const data = JSON.parse(source.textContent);
  const at = {};
  for (const [readout, kind, exposure, stage, mover, levels, mean, half] of data.series) {
    at[[readout, kind, exposure, stage, mover]] = { levels, mean, half };
  }
  const names = { self: "self", other: "other", drifter: "drifter (moves without aim)" };
  const state = { readout: "reward", kind: "empathy", degrees: 60, exposure: 0, stage: data.stages.length - 1 };

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const svg = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  // ---- controls
  const choice = (name, values, label) => {
    const set = make("fieldset", { class: "choice" }, make("legend", {}, label));
    for (const value of values) {
      const input = make("input", { type: "radio", name, value, id: `${name}-${value}` });
      input.addEventListener("change", () => { state[name] = name === "exposure" ? Number(value) : value; draw(); });
      set.append(make("label", { for: input.id }, input, ` ${name === "exposure" ? "p = " + value : value}`));
    }
    return set;
  };
  const slider = (name, max, label) => {
    const input = make("input", { type: "range", min: 0, max, step: 1, id: name, "aria-label": label });
    const shown = make("output", { for: name });
    input.addEventListener("input", () => { state[name] = Number(input.value); draw(); });
    return make("div", { class: "slide" }, make("label", { for: name }, label), input, shown);
  };
  const kinds = make("div", {});
  const controls = make("div", { class: "controls" },
    choice("readout", Object.keys(data.kinds), "Who is asked: reward model or value function"),
    kinds,
    choice("exposure", data.exposures, "Share of the other's meals that was ever labelled"),
    slider("degrees", 90, "How unlike the self the other looks (angle of looks)"),
    slider("stage", data.stages.length - 1, "Stage of training"));
  const answers = make("div", { class: "answers", "aria-live": "polite" });
  const note = make("p", { class: "note" });
  place.replaceChildren(controls, answers, note);

  // ---- numbers
  const read = (mover) => {
    const stage = data.stages[state.stage];
    const found = at[[state.readout, state.kind, state.exposure, stage, mover]];
    if (!found) return null;
    const angles = found.levels.map((s) => (Math.acos(Math.min(1, s)) * 180) / Math.PI); // descending
    const wanted = mover === "self" ? angles[0] : state.degrees;
    let i = angles.findIndex((a) => a <= wanted + 1e-9);
    if (i < 0) i = angles.length - 1;
    if (i === 0 || Math.abs(angles[i] - wanted) < 1e-9) return { mean: found.mean[i], half: found.half[i] };
    const share = (angles[i - 1] - wanted) / (angles[i - 1] - angles[i]);
    const between = (x) => x[i - 1] + share * (x[i] - x[i - 1]);
    return { mean: between(found.mean), half: between(found.half) };
  };
  const [low, high] = [-0.5, 1.3];
  const percent = (x) => (100 * (Math.max(low, Math.min(high, x)) - low)) / (high - low);

  // ---- pictures
  const mix = (a, b, share) => {
    const parts = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    const [x, y] = [parts(a), parts(b)];
    return `rgb(${x.map((v, i) => Math.round(v + share * (y[i] - v))).join(",")})`;
  };
  const picture = (mover, [contact, phase, sign]) => {
    const cell = 12, valence = data.kinds[state.readout][state.kind].valences === "loss" ? "loss" : "gain";
    const box = svg("svg", { viewBox: "-2 -2 90 40", role: "img" });
    const words = { event: "the item is met", twin: "the item is elsewhere", averted: "the item vanishes" };
    const title = svg("title", {});
    title.textContent = `${mover}: ${words[contact]}, at ${phase}`;
    box.append(title);
    for (const left of [0, 50]) {
      for (let row = 0; row < 3; row++) for (let col = 0; col < 3; col++) {
        box.append(svg("rect", { x: left + col * cell, y: row * cell, width: cell, height: cell, class: "cell" }));
      }
    }
    box.append(svg("rect", { x: 41, y: -2, width: 4, height: 40, class: "glass" }));
    const own = mover === "self" ? 0 : 50, stands = phase === "approach" ? 1 : 2;
    const item = (col, row) => svg("rect", {
      x: own + col * cell + 3, y: row * cell + 3, width: 6, height: 6, fill: data.items[valence], transform: `rotate(45 ${own + col * cell + 6} ${row * cell + 6})`,
    });
    const gone = contact === "averted" && phase !== "approach";
    const body = (left, col, row, fill) => svg("circle", { cx: left + col * cell + 6, cy: row * cell + 6, r: 4.6, fill });
    const looks = mix(data.colours.self, data.colours[mover === "drifter" ? "drifter" : "other"], state.degrees / 90);
    box.append(body(0, mover === "self" ? stands : 0, mover === "self" ? 1 : 2, data.colours.self));
    box.append(body(50, mover === "self" ? 0 : stands, mover === "self" ? 2 : 1, looks));
    if (!gone) box.append(contact === "twin" ? item(0, 0) : item(2, 1));
    return make("figure", { class: "frame" }, box, make("figcaption", {}, `${sign > 0 ? "+" : "−"} ${words[contact]} (${phase})`));
  };

  // ---- everything
  const draw = () => {
    const stage = data.stages[state.stage], last = stage === "converged";
    if (!(state.kind in data.kinds[state.readout])) state.kind = "empathy";
    const known = data.exposures.filter((p) => at[[state.readout, state.kind, p, stage, "other"]]);
    if (!known.includes(state.exposure)) state.exposure = known[0];
    kinds.replaceChildren(choice("kind", Object.keys(data.kinds[state.readout]), "Kind of empathy"));
    for (const name of ["readout", "kind", "exposure"]) {
      for (const input of place.querySelectorAll(`input[name="${name}"]`)) {
        input.checked = input.value === String(state[name]);
        input.disabled = name === "exposure" && !known.includes(Number(input.value));
      }
    }
    const similarity = Math.cos((state.degrees * Math.PI) / 180);
    const set = (name, text) => {
      place.querySelector(`#${name}`).value = state[name];
      place.querySelector(`output[for="${name}"]`).textContent = text;
    };
    set("degrees", `${state.degrees} degrees: similarity s = ${similarity.toFixed(2)}`);
    set("stage", last ? "converged, on a frozen world model" : `update ${Number(stage).toLocaleString("en")}, world model and heads learning together`);
    answers.replaceChildren(...data.movers.map((mover) => {
      const found = read(mover), truth = mover === "self" ? 1 : 0;
      const track = make("div", { class: "track" });
      const mark = (kind, style) => track.append(make("i", { class: kind, style }));
      mark("zero", `left:${percent(0)}%`);
      mark("bar", `left:${percent(truth)}%`);
      let text = "not defined";
      if (found) {
        const [a, b] = [percent(found.mean - found.half), percent(found.mean + found.half)];
        mark("interval", `left:${a}%;width:${b - a}%`);
        mark("dot", `left:${percent(found.mean)}%`);
        text = `${found.mean.toFixed(2)} ± ${found.half.toFixed(2)} of the self's true answer (truth: ${truth})`;
      }
      const frames = data.kinds[state.readout][state.kind].frames.map((frame) => picture(mover, frame));
      return make("section", { class: "answer", "data-mover": mover, style: `--verdict:${data.colours[mover]}` },
        make("h3", {}, names[mover]), make("div", { class: "frames" }, ...frames), track, make("p", { class: "value" }, text));
    }));
    const agents = data.agents[last ? "converged" : "watched"];
    note.textContent = `Means over ${agents} agents with 95% intervals (Student's t), in units of the self's true answer to the same scene; dashed: the truth. ` +
      "A kind compares the frames shown, + less −, over what the item is worth. Between the measured looks numbers are interpolated in angle.";
  };
  draw();
})();
