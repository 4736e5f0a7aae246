// Asks for the same page again and takes over those parts that changed; the server alone decides how anything looks.
"use strict";

const EVERY_MS = 3000;
const link = document.getElementById("link");
const filter = document.getElementById("filter");

function narrow() {
  if (!filter) return;
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const card of document.querySelectorAll(".sweeps > .card")) {
    const text = card.textContent.toLowerCase();
    card.hidden = !words.every((word) => text.includes(word));
  }
}

function replace(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  old.replaceWith(fresh);
  if (focused) for (const one of fresh.querySelectorAll("a")) if (one.getAttribute("href") === focused) one.focus();
}

async function look() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.pathname, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const list = document.getElementById("sweeps");
    const freshList = page.getElementById("sweeps");
    if (list && freshList && list.dataset.live !== freshList.dataset.live) {
      replace(list, document.adoptNode(freshList));
    } else {
      for (const old of document.querySelectorAll("[data-live]")) {
        const fresh = old === list ? null : page.getElementById(old.id);
        if (fresh && fresh.innerHTML !== old.innerHTML) replace(old, document.adoptNode(fresh));
      }
    }
    narrow();
    link.textContent = "";
  } catch {
    link.textContent = "no connection; trying again";
  }
}

if (filter) {
  filter.closest("label").hidden = false;
  filter.addEventListener("input", narrow);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== filter) {
      event.preventDefault();
      filter.focus();
    }
  });
}
if (document.querySelector("[data-live]")) setInterval(look, EVERY_MS);
document.addEventListener("visibilitychange", look);
