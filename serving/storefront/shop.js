"use strict";
// The demo shop's behaviour: events out, pages in, cards that move to their new places. No library, no other host.
// All texts are set with textContent, so that a title is never markup.

const body = document.body;
const byId = (id) => document.getElementById(id);
const person = { session_id: body.dataset.session, user_id: body.dataset.user || null };
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
const state = { request: byId("facts").querySelector("dd").textContent, inCart: 0, latest: 0 };

function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function drawn(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

async function call(method, path, document) {
  const headers = { "Content-Type": "application/json" };
  const key = sessionStorage.getItem("key");
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(path, { method, headers, body: document && JSON.stringify(document) });
  if (answer.status === 401 && body.dataset.keyed) {
    const given = window.prompt("This shop's interface needs a key (Authorization: Bearer)");
    if (given) {
      sessionStorage.setItem("key", given);
      return call(method, path, document);
    }
  }
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function guarded(work) {
  try {
    await work();
    notice("");
  } catch {
    notice("The shop cannot be reached just now. This is the last page that it sent; try again in a moment.");
  }
}

function shape(card) {
  const turned = drawn("g", { transform: `rotate(${card.turn} 60 45)`, fill: `hsl(${card.hue} 55% 70%)` });
  const kinds = [
    ["circle", { cx: 60, cy: 45, r: 30 }],
    ["rect", { x: 34, y: 19, width: 52, height: 52, rx: 8 }],
    ["polygon", { points: "60,12 92,70 28,70" }],
    ["ellipse", { cx: 60, cy: 45, rx: 38, ry: 20 }],
  ];
  turned.append(drawn(...kinds[card.shape]));
  return turned;
}

function picture(card) {
  const svg = drawn("svg", { class: "picture", viewBox: "0 0 120 90", "aria-hidden": "true" });
  const letters = drawn("text", { x: 60, y: 54, "text-anchor": "middle" });
  letters.textContent = card.letters;
  svg.append(drawn("rect", { width: 120, height: 90, fill: `hsl(${card.hue} 60% 88%)` }), shape(card), letters);
  return svg;
}

function cardOf(slot, card) {
  const look = node("button", { class: "look", type: "button" }, picture(card));
  look.append(node("span", { class: "title" }, card.title), node("span", { class: "price" }, card.price));
  const tools = node("p", { class: "tools" });
  tools.append(node("button", { class: "add", type: "button" }, "Add to cart"));
  if (!slot.sponsored) tools.append(node("button", { class: "why", type: "button" }, "Why this?"));
  const made = node("li", { class: "card", "data-item": slot.item_id, "data-position": slot.position });
  if (slot.sponsored) {
    made.dataset.request = slot.request;
    made.append(node("span", { class: "ad" }, "Ad"));
  }
  made.append(look, tools);
  return made;
}

async function cardsOf(ids) {
  const query = ids.map((id) => `id=${encodeURIComponent(id)}`).join("&");
  const { cards } = await call("GET", `/v1/cards?${query}`);
  return new Map(cards.map((card) => [card.item_id, card]));
}

function places() {
  return new Map([...document.querySelectorAll(".card")].map((card) => [card.dataset.item, card.getBoundingClientRect()]));
}

function positions() {
  return new Map([...document.querySelectorAll(".card")].map((card) => [card.dataset.item, card.dataset.position]));
}

function glide(before) {
  if (calm.matches) return;
  for (const card of document.querySelectorAll(".card")) {
    const old = before.get(card.dataset.item);
    const now = card.getBoundingClientRect();
    const from = old
      ? { transform: `translate(${old.left - now.left}px, ${old.top - now.top}px)` }
      : { opacity: 0, transform: "scale(.92)" };
    card.animate([from, { opacity: 1, transform: "none" }], { duration: 450, easing: "ease-out" });
  }
}

function show(modules, cards, focus) {
  const before = places();
  const sections = modules.map((module, number) => {
    const list = node("ul", { class: "row" });
    for (const slot of module.slots) if (cards.has(slot.item_id)) list.append(cardOf(slot, cards.get(slot.item_id)));
    const heading = node("h2", { id: `m${number}` }, module.title);
    return node("section", { class: "module", "data-module": module.module, "aria-labelledby": `m${number}` }, heading, list);
  });
  byId("page").replaceChildren(...sections);
  glide(before);
  if (focus) {
    const again = [...document.querySelectorAll(".card")].find((card) => card.dataset.item === focus);
    (again ? again.querySelector(".look") : byId("page")).focus({ preventScroll: true });
  }
}

function tell(answer, took, before) {
  const facts = [
    ["Request", answer.request_id],
    ["Model", answer.model_version],
    ["Policy", answer.policy || "search"],
    ["Fallback", answer.fallback || "none"],
    ["Latency", `${took.toFixed(0)} ms`],
  ];
  byId("facts").replaceChildren(...facts.flatMap(([name, value]) => [node("dt", {}, name), node("dd", {}, value)]));
  const slots = answer.results || answer.modules.flatMap((module) => module.slots);
  const rows = slots.map((slot) => {
    const chance = slot.propensity.toPrecision(3) + (slot.explored ? " explored" : "");
    const values = [slot.position, slot.item_id, before.get(slot.item_id) || "–", slot.score.toFixed(3), chance];
    return node("tr", {}, ...values.map((value) => node("td", {}, String(value))));
  });
  byId("slots").replaceChildren(...rows);
}

// Advertised are items that left the page a moment ago, so that nothing stands on it twice.
async function sponsored(ids) {
  const ads = ids.slice(0, 5).map((id, n) => ({ ad_id: `demo-${n}`, item_id: id, bid: 0.2, budget_left: 1 }));
  if (!ads.length) return [];
  const { placements, request_id: request } = await call("POST", "/v1/ads", { ...person, slots: 1, ads });
  return placements.map((ad) => ({ ...ad, request, sponsored: true }));
}

function withAd(page, ads) {
  if (!ads.length) return page.modules;
  return [page.modules[0], { module: "sponsored", title: "Sponsored", slots: ads }, ...page.modules.slice(1)];
}

async function refresh(focus) {
  const turn = ++state.latest;
  const before = positions();
  const started = performance.now();
  const page = await call("POST", "/v1/homepage", { ...person, platform: "web", page_size: 24 });
  const took = performance.now() - started;
  const ids = page.modules.flatMap((module) => module.slots.map((slot) => slot.item_id));
  const gone = [...before.keys()].filter((id) => !ids.includes(id));
  const [cards, ads] = await Promise.all([cardsOf([...ids, ...gone]), sponsored(gone)]);
  if (turn !== state.latest) return;
  state.request = page.request_id;
  show(withAd(page, ads), cards, focus);
  tell(page, took, before);
}

function eventOf(type, card, more = {}) {
  const known = { event_id: crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}` };
  const ad = card && card.dataset.request;
  const place = { request_id: ad || state.request || null, position: card ? Number(card.dataset.position) : null };
  const surface = ad ? "ads" : "home";
  const when = { event_time: new Date().toISOString(), event_type: type, platform: "web", surface };
  return { ...known, ...when, ...person, item_id: card ? card.dataset.item : null, ...place, ...more };
}

const send = (event) => call("POST", "/v1/events", { events: [event] });

async function find(query) {
  const before = positions();
  const started = performance.now();
  const answer = await call("POST", "/v1/search", { ...person, query, limit: 24 });
  const took = performance.now() - started;
  send(eventOf("search", null, { query, surface: "search", request_id: null })).catch(() => null);
  const cards = await cardsOf(answer.results.map((slot) => slot.item_id));
  state.request = answer.request_id;
  const title = answer.results.length ? `Found for “${query}”` : `Nothing found for “${query}”`;
  show([{ module: "search", title, slots: answer.results }], cards);
  tell(answer, took, before);
}

async function explain(card) {
  const query = `item_id=${encodeURIComponent(card.dataset.item)}`;
  const told = await call("GET", `/v1/explanations/${encodeURIComponent(state.request)}?${query}`);
  const causes = await cardsOf(told.because.map((cause) => cause.item_id));
  const parts = [node("p", {}, card.querySelector(".title").textContent)];
  const verbs = { view: "looked at", click: "looked at", add_to_cart: "put into the cart", purchase: "bought" };
  const lines = told.because.map((cause) => {
    const title = (causes.get(cause.item_id) || {}).title || cause.item_id;
    return node("li", {}, `You ${verbs[cause.event_type] || cause.event_type} ${title} (${Math.round(100 * cause.weight)} %)`);
  });
  parts.push(lines.length ? node("ul", {}, ...lines) : node("p", {}, "It is liked in the shop; nothing of yours led to it."));
  const weights = told.features.slice(0, 6).map((part) => node("li", {}, `${part.name}: ${part.contribution.toFixed(3)}`));
  parts.push(node("p", {}, `Score ${told.score.toFixed(3)}, of which`), node("ul", {}, ...weights));
  byId("why-text").replaceChildren(...parts);
  byId("why").showModal();
}

byId("page").addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (!card) return;
  if (event.target.closest(".why")) return void guarded(() => explain(card));
  const adding = event.target.closest(".add");
  if (!adding && !event.target.closest(".look")) return;
  guarded(async () => {
    await send(eventOf(adding ? "add_to_cart" : "click", card));
    if (adding) byId("cart").textContent = String(++state.inCart);
    await refresh(card.dataset.item);
  });
});

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = byId("query").value.trim();
  guarded(() => (query ? find(query) : refresh()));
});

byId("who").addEventListener("change", () => byId("persona").submit());
byId("why-close").addEventListener("click", () => byId("why").close());
function drawer(open) {
  byId("drawer").hidden = !open;
  byId("open-drawer").setAttribute("aria-expanded", String(open));
  byId(open ? "close-drawer" : "open-drawer").focus();
}
byId("open-drawer").addEventListener("click", () => drawer(byId("drawer").hidden));
byId("close-drawer").addEventListener("click", () => drawer(false));
byId("drawer").addEventListener("keydown", (event) => event.key === "Escape" && drawer(false));
