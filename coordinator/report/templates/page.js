"use strict";
(() => {
  const stretch = () => document.getElementById("stretch");

  // Show what links carried in the stretch that the slider points at; at 0, over the whole run.
  const showStretch = () => {
    const slider = stretch();
    if (!slider) return;
    const place = Number(slider.value);
    document.querySelector("output[for=stretch]").textContent = JSON.parse(slider.dataset.names)[place];
    for (const link of document.querySelectorAll(".link[data-levels]")) {
      link.dataset.whole ??= link.classList[1];
      const level = place ? "w" + (link.dataset.levels[place - 1] ?? "0") : link.dataset.whole;
      link.classList.replace(link.classList[1], level);
    }
  };
  document.addEventListener("input", (event) => event.target.id === "stretch" && showStretch());
  // in print, and wherever else it cannot be moved, the whole run is what counts
  addEventListener("beforeprint", () => { if (stretch()) { stretch().value = 0; showStretch(); } });
  showStretch(); // browsers keep a slider where it was when a page is loaded again

  charts.begin();

  const source = document.documentElement.dataset.live;
  if (!source) return;
  const PERIOD_MS = 2000, PATIENCE_MS = 30000;
  const pulse = document.getElementById("pulse");
  const main = document.querySelector("main");
  let tag = "", changed = Date.now();

  const replace = (text) => {
    const place = stretch()?.value;
    const open = new Map([...main.querySelectorAll("details")].map((one) => [one.id, one.open]));
    const focused = main.contains(document.activeElement) ? document.activeElement.id : "";
    main.innerHTML = text;
    charts.begin();
    for (const one of main.querySelectorAll("details")) if (open.has(one.id)) one.open = open.get(one.id);
    if (stretch() && place) stretch().value = place;
    showStretch();
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };

  const look = async () => {
    try {
      const answer = await fetch(source, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store",
        signal: AbortSignal.timeout(PATIENCE_MS) });
      if (answer.status === 200) {
        replace(await answer.text());
        tag = answer.headers.get("ETag");
        changed = Date.now();
      } else if (answer.status !== 304) throw new Error(answer.statusText);
      if (answer.headers.get("Run-Ended") === "yes") { pulse.textContent = "the run has ended"; return; }
      pulse.textContent = `live, last change ${Math.round((Date.now() - changed) / 1000)} s ago`;
    } catch {
      pulse.textContent = "no answer: this is the last known state";
    }
    setTimeout(look, PERIOD_MS);
  };
  look();
})();
