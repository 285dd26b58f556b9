// What the page does beside htmx: times in the reader's zone, filters, the map's focus, copying, the theme.
// Everything works without it; nothing is decided or computed here.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// ---- times: local, with UTC in the title -----------------------------------------------------------------------------
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

function localTimes(root) {
  for (const time of all("time[datetime]", root)) {
    const at = new Date(time.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    time.textContent = today ? clock.format(at) : `${day.format(at)}, ${clock.format(at)}`;
  }
}

// ---- the scope picker and the filters of the map apply themselves ----------------------------------------------------
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-go]")) event.target.form.requestSubmit();
  if (event.target.matches("#theme input")) keepTheme(event.target.value);
});

// ---- Enter in a decision saves that decision, not the first button of the form ----------------------------------------
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.target.matches(".decide input")) return;
  event.preventDefault();
  event.target.closest(".decide").querySelector("[data-save]").click();
});

// Typing a range chooses it.
document.addEventListener("input", (event) => {
  if (event.target.matches(".choices input[type=text]")) event.target.closest("label").querySelector("[type=radio]").checked = true;
});

// ---- the map: what is pointed at, or focused, stands out; its details are in the pane ---------------------------------
function light(row) {
  const map = row.closest(".map");
  const wanted = new Set(row.dataset.links.split(" "));
  map.classList.add("focused");
  for (const part of all("[data-links]", map)) {
    part.classList.toggle("lit", part.dataset.links.split(" ").some((link) => wanted.has(link)));
  }
  const told = row.matches(".head") ? [row.getAttribute("href").slice(1)] : [...wanted].map((link) => `d-${link}`);
  show(told.map((id) => document.getElementById(id)).filter(Boolean));
}

function unlight(row) {
  const map = row.closest(".map");
  map.classList.remove("focused");
  for (const part of all(".lit", map)) part.classList.remove("lit");
}

function show(articles) {
  if (!articles.length) return;
  for (const other of all(".pane .shown")) other.classList.remove("shown");
  for (const article of articles) article.classList.add("shown");
}

for (const [starts, ends] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
  document.addEventListener(starts, (event) => {
    const row = event.target.closest?.(".map .row");
    if (row) light(row);
  });
  document.addEventListener(ends, (event) => {
    const row = event.target.closest?.(".map .row");
    if (row && !row.contains(event.relatedTarget)) unlight(row);
  });
}

// A map wider than its frame begins at the selected workload.
function center(root) {
  for (const canvas of all(".canvas", root)) {
    const own = canvas.querySelector(".self");
    if (!own || canvas.scrollWidth <= canvas.clientWidth) continue;
    const box = own.getBoundingClientRect();
    const frame = canvas.getBoundingClientRect();
    canvas.scrollLeft += box.left + box.width / 2 - frame.left - frame.width / 2;
  }
}

// ---- copying ---------------------------------------------------------------------------------------------------------
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent);
    say("Copied");
  } catch {
    say("The browser does not let this page copy: select the text and copy it yourself");
  }
});

// ---- one line that is read out, and goes away ------------------------------------------------------------------------
let going = 0;

function say(text) {
  document.getElementById("said").textContent = text;
  leave();
}

function leave() {
  clearTimeout(going);
  going = setTimeout(() => { document.getElementById("said").textContent = ""; }, 6000);
}

// ---- the theme -------------------------------------------------------------------------------------------------------
function keepTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  try { localStorage.setItem("wattle-theme", theme); } catch { /* storage is off: until the next page */ }
}
const kept = document.documentElement.dataset.theme ?? "";
for (const choice of all("#theme input")) choice.checked = choice.value === kept;

// ---- what htmx swaps: open evidence stays open, the pane keeps its links ---------------------------------------------
let open = new Set();
let shown = [];
document.addEventListener("htmx:beforeSwap", () => {
  open = new Set(all("[data-keep][open]").map((details) => details.dataset.keep));
  shown = all(".pane .shown, .pane article:target").map((article) => article.id);
});
document.addEventListener("htmx:afterSettle", () => {
  for (const details of all("[data-keep]")) details.open = details.open || open.has(details.dataset.keep);
  show(shown.map((id) => document.getElementById(id)).filter(Boolean));
  localTimes(document);
  center(document);
  leave();
});
document.addEventListener("htmx:responseError", (event) => {
  // 409 and 422 bring their own sentence.
  const { status } = event.detail.xhr;
  if (status !== 409 && status !== 422) say(`Nothing was decided (${status}): load this page again, then decide`);
});
document.addEventListener("htmx:sendError", () => say("The aggregator does not answer; nothing was decided"));

localTimes(document);
center(document);
