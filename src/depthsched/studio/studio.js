"use strict";
// A tip for the token that is pointed at or has the focus; arrows walk through a text.
(() => {
  let tip = null, pointed = null;
  const token = (event) => event.target instanceof Element ? event.target.closest(".ds-token") : null;

  function box() {
    if (!tip) {
      tip = document.createElement("div");
      tip.id = "ds-tip";
      tip.setAttribute("role", "tooltip");
      tip.hidden = true;
      (document.querySelector(".gradio-container") ?? document.body).append(tip);
    }
    return tip;
  }

  function hide() {
    if (pointed) pointed.removeAttribute("aria-describedby");
    box().hidden = true;
    pointed = null;
  }

  function point(found) {
    hide();
    pointed = found;
    box().textContent = found.dataset.tip;
    tip.hidden = false;
    found.setAttribute("aria-describedby", "ds-tip");
    beside();
  }

  function beside() {
    if (!pointed) return;
    if (!pointed.isConnected) return hide();
    const place = pointed.getClientRects()[0] ?? pointed.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const below = place.bottom + size.height + 6 < window.innerHeight;
    tip.style.top = `${Math.max(below ? place.bottom + 4 : place.top - size.height - 4, 4)}px`;
    tip.style.left = `${Math.max(Math.min(place.left, window.innerWidth - size.width - 8), 8)}px`;
  }

  document.addEventListener("pointerover", (event) => { const found = token(event); if (found) point(found); else if (pointed && pointed !== document.activeElement) hide(); });
  document.addEventListener("focusin", (event) => { const found = token(event); if (found) point(found); });
  document.addEventListener("focusout", (event) => { if (token(event)) hide(); });
  document.addEventListener("click", (event) => { const found = token(event); if (found) point(found); });
  window.addEventListener("scroll", beside, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const found = token(event);
    if (!step || !found) return;
    const next = step > 0 ? found.nextElementSibling : found.previousElementSibling;
    if (!next) return;
    event.preventDefault();
    found.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
})();
