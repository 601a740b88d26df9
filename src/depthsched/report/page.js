"use strict";
// The depth map: tokens of the chosen answer, and a tip for the one that is pointed at or has the focus.
const maps = JSON.parse(document.getElementById("maps").textContent);
const at = (id) => document.getElementById(id);
const plan = at("plan"), prompt = at("prompt"), box = at("tokens"), tip = at("tip");
let shown = null, pointed = null;

function answers() {
  return maps.filter((answer) => answer.plan === plan.value);
}

function listPrompts() {
  const before = prompt.selectedIndex;
  prompt.replaceChildren(...answers().map((answer, i) => {
    const text = answer.prompt.replace(/\s+/g, " ");
    return new Option(`${i + 1}: ${text.length > 60 ? text.slice(0, 59) + "…" : text}`, i);
  }));
  prompt.selectedIndex = Math.min(Math.max(before, 0), prompt.length - 1);
}

function show() {
  hide();
  shown = answers()[prompt.selectedIndex];
  const least = Math.min(...maps.map((answer) => Math.min(...answer.depths)));
  const span = Math.max(shown.num_layers - least, 1);
  box.replaceChildren(...shown.pieces.map((piece, i) => {
    const token = document.createElement("span");
    token.className = shown.agree[i] ? "token" : "token differs";
    token.style.setProperty("--depth", (shown.depths[i] - least) / span);
    token.dataset.index = i;
    token.tabIndex = i === 0 ? 0 : -1;
    token.textContent = piece === "" ? "·" : piece.replace(/\n/g, "↵\n");
    return token;
  }));
  at("asked").textContent = `Asked: ${shown.prompt}`;
  at("shallow").textContent = `${least} layers`;
  at("deep").textContent = `${shown.num_layers}`;
  const steps = shown.depths.slice(1);
  const mean = steps.reduce((a, b) => a + b, 0) / Math.max(steps.length, 1);
  const same = shown.agree.filter(Boolean).length;
  at("sum").textContent = `${shown.tokens.length} tokens, mean depth ${mean.toFixed(1)} of ${shown.num_layers}, `
    + `${same} of ${shown.tokens.length} as full depth would choose.`;
}

function say(i) {
  if (shown.notes) return shown.notes[i];
  const quoted = (text) => JSON.stringify(text);
  const likely = ([text, p]) => `${quoted(text)} ${(100 * p).toFixed(1)}%`;
  const [text, p] = shown.full[i];
  const full = shown.agree[i]
    ? `agrees, ${(100 * p).toFixed(1)}%`
    : `${quoted(text)} ${(100 * p).toFixed(1)}%; this token ${(100 * shown.full_probability[i]).toFixed(1)}%`;
  return [
    `token ${i}, ${shown.depths[i]} of ${shown.num_layers} layers${i === 0 ? " (prefill)" : ""}`,
    `plan: ${shown.top[i].map(likely).join(", ")}`,
    `full depth: ${full}`,
  ].join("\n");
}

function point(token) {
  tip.textContent = say(Number(token.dataset.index));
  tip.hidden = false;
  for (const other of box.querySelectorAll("[aria-describedby]")) other.removeAttribute("aria-describedby");
  token.setAttribute("aria-describedby", "tip");
  pointed = token;
  place();
}

function place() {
  if (!pointed) return;
  const token = pointed.getClientRects()[0] ?? pointed.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const below = token.bottom + size.height + 6 < window.innerHeight;
  tip.style.top = `${Math.max(below ? token.bottom + 4 : token.top - size.height - 4, 4)}px`;
  tip.style.left = `${Math.max(Math.min(token.left, window.innerWidth - size.width - 8), 8)}px`;
}

function hide() {
  tip.hidden = true;
  pointed = null;
}

function move(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape") hide();
  if (!step || !event.target.dataset.index) return;
  const next = box.children[Number(event.target.dataset.index) + step];
  if (!next) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

const token = (event) => event.target.closest(".token");
box.addEventListener("pointerover", (event) => token(event) && point(token(event)));
box.addEventListener("pointerleave", () => { if (!box.contains(document.activeElement)) hide(); });
box.addEventListener("click", (event) => token(event) && point(token(event)));
box.addEventListener("focusin", (event) => token(event) && point(token(event)));
box.addEventListener("focusout", hide);
document.addEventListener("keydown", move);
window.addEventListener("scroll", place, { passive: true });
at("controls").addEventListener("submit", (event) => event.preventDefault());
plan.addEventListener("change", () => { listPrompts(); show(); });
prompt.addEventListener("change", show);
// Full depth alone is one colour: begin with a plan that leaves layers out.
const first = maps.find((answer) => Math.min(...answer.depths) < answer.num_layers);
if (first) plan.value = first.plan;
listPrompts();
show();
