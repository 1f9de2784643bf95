"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

// Point at a run: it lights up wherever it is drawn or told, and a note says what is known of it.
const note = document.getElementById("note");
for (const mark of document.querySelectorAll(".mark")) {
  const title = mark.querySelector("title");
  mark.setAttribute("aria-label", title.textContent);
  title.remove();
}

function point(target) {
  const run = target?.dataset.run;
  for (const lit of document.querySelectorAll(".lit")) lit.classList.remove("lit");
  note.hidden = true;
  if (!run) return;
  for (const shown of document.querySelectorAll(`[data-run="${CSS.escape(run)}"]`)) shown.classList.add("lit");
  if (!target.matches(".mark") || !data.runs[run]) return;
  const name = Object.assign(document.createElement("strong"), { textContent: run });
  const lines = data.runs[run].map(([label, value]) => {
    const line = document.createElement("div");
    line.append(Object.assign(document.createElement("span"), { textContent: label }), value);
    return line;
  });
  note.replaceChildren(name, ...lines);
  note.hidden = false;
  const mark = target.getBoundingClientRect();
  const left = Math.min(mark.right + 10, document.documentElement.clientWidth - note.offsetWidth - 8);
  const top = mark.top - note.offsetHeight - 10;
  note.style.left = `${Math.max(left, 8) + window.scrollX}px`;
  note.style.top = `${(top < 8 ? mark.bottom + 10 : top) + window.scrollY}px`;
}

document.addEventListener("pointerover", (event) => point(event.target.closest?.("[data-run]")));
document.addEventListener("pointerdown", (event) => point(event.target.closest?.("[data-run]")));

// Ask the law: the same numbers as `ladder predict law.json`, from the law's own draws.
const ask = document.getElementById("ask");
if (ask) {
  const unpacked = (text) => new Float64Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const select = (condition, yes, no) => (condition ? yes : no);
  const laws = Object.fromEntries(
    Object.entries(formulas(select)).map(([part, f]) => {
      const { theta, draws, scores, noise, relative, growth, lowest } = data.laws[part];
      const width = theta.length, all = unpacked(draws), off = unpacked(scores);
      const drawn = Array.from(off, (_, s) => all.subarray(s * width, (s + 1) * width));
      const noiseAt = (value, loss) => noise * Math.max(loss / lowest, 1) ** growth * (relative ? value : 1);
      const noisy = (value, loss, s, grown = 1) => value + off[s] * grown * noiseAt(value, loss);
      return [part, { f, theta, drawn, noisy }];
    }),
  );

  function growthBeyond(x, y) {
    const { misfit, reach, sizes } = data.beyond;
    return Math.sqrt(1 + (misfit * Math.min(...sizes.map(([ax, ay]) => (x - ax) ** 2 + (y - ay) ** 2))) / reach ** 2);
  }

  function fixed(x, decimals) {
    return Number.isNaN(x) ? "–" : x.toFixed(decimals);
  }

  function central(values) {
    if (values.length < 2) return [NaN, NaN];
    const sorted = Float64Array.from(values).sort();
    return [(1 - data.level) / 2, (1 + data.level) / 2].map((quantile) => {
      const at = quantile * (sorted.length - 1), below = Math.floor(at);
      return sorted[below] + (at - below) * (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]);
    });
  }

  function predict(params, tokens) {
    const { loss, error } = laws;
    const value = loss.f(loss.theta, [params, tokens]), grown = growthBeyond(Math.log(params), Math.log(tokens));
    const losses = loss.drawn.map((theta, s) => {
      const drawn = loss.f(theta, [params, tokens]);
      return loss.noisy(drawn, drawn, s, grown);
    });
    const predicted = { loss: { value, interval: central(losses) } };
    if (error) {
      const fraction = (x) => Math.min(Math.max(x, 0), 1);
      const errors = error.drawn.map((theta, s) => error.noisy(error.f(theta, [losses[s]]), losses[s], s));
      predicted.error = { value: fraction(error.f(error.theta, [value])), interval: central(errors.map(fraction)) };
    }
    return predicted;
  }

  function isInside(params, tokens) {
    const x = Math.log(params), y = Math.log(tokens), corners = data.ladder.hull, near = 0.01;
    const within = (axis, value) => {
      const ends = corners.map((corner) => corner[axis]);
      return value >= Math.min(...ends) - near && value <= Math.max(...ends) + near;
    };
    return within(0, x) && within(1, y) && corners.every(([ax, ay], i) => {
      const [bx, by] = corners[(i + 1) % corners.length];
      return (bx - ax) * (y - ay) - (by - ay) * (x - ax) >= -near * Math.hypot(bx - ax, by - ay);
    });
  }

  function parsed(text) {
    const found = /^([\d.]+(?:e[+-]?\d+)?) *([kmbt]?)$/i.exec(text.replace(/,/g, "").trim());
    const unit = { "": 1, k: 1e3, m: 1e6, b: 1e9, t: 1e12 };
    return found ? Number(found[1]) * unit[found[2].toLowerCase()] : NaN;
  }

  const digits = (value, count) => Number(value.toPrecision(count)).toString();
  function far(name, value, [low, high]) {
    if (value > 1.01 * high) return `${name} ${digits(value / high, 3)}×`;
    return value < low / 1.01 ? `${name} ${digits(low / value, 3)}× below` : "";
  }

  const say = (id, text) => (document.getElementById(id).textContent = text);
  function answer() {
    const [params, tokens] = [parsed(ask.params.value), parsed(ask.tokens.value)];
    const known = params > 0 && tokens > 0 && Number.isFinite(params * tokens);
    ask.classList.toggle("unknown", !known);
    if (!known) return say("asked-note", "Type a size such as 1.4e9 or 1.4B into both fields.");
    const shown = { loss: (x) => fixed(x, 4), error: (x) => fixed(100 * Number(x.toFixed(4)), 2) };
    for (const [part, { value, interval }] of Object.entries(predict(params, tokens))) {
      say(`asked-${part}`, shown[part](value));
      say(`asked-${part}-low`, shown[part](interval[0]));
      say(`asked-${part}-high`, shown[part](interval[1]));
    }
    const flops = 6 * params * tokens, { ladder } = data;
    const beyond = [
      far("FLOPs", flops, ladder.flops),
      far("N", params, ladder.params),
      far("M", tokens / params, ladder.token_multiplier),
    ].filter(Boolean);
    const where = isInside(params, tokens) ? "Among the runs fitted" : "Outside the hull of the runs fitted";
    const how = beyond.length ? `beyond the ladder: ${beyond.join(", ")}` : "within the ladder’s range";
    say("asked-note", `M = ${digits(tokens / params, 3)}, C = ${flops.toExponential(2)} FLOPs. ${where}; ${how}.`);
    say("asked-command", `ladder predict law.json --params ${params} --tokens ${tokens}`);
  }

  function prefill() {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const name of ["params", "tokens"]) if (asked.has(name)) ask[name].value = asked.get(name);
    answer();
  }

  ask.addEventListener("submit", (event) => event.preventDefault());
  ask.addEventListener("input", () => {
    answer();
    const asked = new URLSearchParams({ params: ask.params.value, tokens: ask.tokens.value });
    history.replaceState(null, "", `#${asked}`);
  });
  window.addEventListener("hashchange", prefill);
  prefill();
}
