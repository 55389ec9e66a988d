"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector, within = document) => within.querySelector(selector);
  const wanted = new Set();
  let query = "";

  // Theme: the system's, or the reader's choice.
  const themes = ["auto", "light", "dark"];
  const store = { get() { try { return localStorage.getItem("mlchaos-theme"); } catch { return null; } },
                  set(value) { try { localStorage.setItem("mlchaos-theme", value); } catch { /* private mode */ } } };
  function showTheme(name) {
    if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
    const button = one(".theme");
    button.hidden = false;
    button.textContent = name[0].toUpperCase() + name.slice(1);
    button.setAttribute("aria-label", `Colour theme: ${button.textContent}`);
  }
  let theme = themes.includes(store.get()) ? store.get() : "auto";

  // Filter and search.
  function textOf(test) {
    test.words ??= `${test.dataset.find} ${test.textContent}`.toLowerCase();
    return test.words;
  }
  function filter() {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, total = 0;
    const tests = all(".test");
    for (const test of tests) {
      const fits = (!wanted.size || wanted.has(test.dataset.outcome)) && words.every((word) => textOf(test).includes(word));
      test.hidden = !fits;
      const count = Number(test.dataset.count ?? 1);
      total += count;
      shown += fits ? count : 0;
    }
    for (const chip of all(".chip")) chip.setAttribute("aria-pressed", String(wanted.has(chip.dataset.outcome)));
    one(".shown").textContent = shown === total ? "" : `${shown} of ${total} tests`;
    one(".none").hidden = shown > 0 || !total;
  }
  function find(text) {
    query = text;
    one(".find input").value = text;
    filter();
  }

  // The journal is compressed, and unpacked when it is opened.
  async function unpack(pre) {
    const packed = pre.dataset.packed;
    if (!packed) return;
    delete pre.dataset.packed;
    try {
      const bytes = Uint8Array.from(atob(packed), (sign) => sign.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      pre.textContent = await new Response(stream).text();
    } catch {
      pre.textContent = "This browser cannot unpack the journal.";
    }
  }

  async function copy(button) {
    const text = one("code", button.parentElement).textContent;
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch {
      // A page from a file has no clipboard in some browsers.
      const area = document.createElement("textarea");
      area.value = text;
      area.style.position = "fixed";
      area.style.opacity = "0";
      button.parentElement.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    button.classList.toggle("done", done);
    if (!done) getSelection().selectAllChildren(one("code", button.parentElement));
    setTimeout(() => { button.textContent = "Copy"; button.classList.remove("done"); }, 1600);
  }

  function openTarget() {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id && document.getElementById(id);
    if (!target || !target.classList.contains("test")) return;
    target.hidden = false;
    one("details", target).open = true;
    target.scrollIntoView();
  }

  function openAll(open) {
    for (const details of all(".test:not([hidden]) > details")) details.open = open;
    const button = one("[data-toggle-all]");
    button.setAttribute("aria-pressed", String(open));
    button.textContent = open ? "Close all" : "Open all";
  }

  function start() {
    showTheme(theme);
    one(".filters").hidden = false;
    for (const button of all(".copy")) button.hidden = false;
    one(".find input").value = query;
    filter();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.matches(".theme")) {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      store.set(theme);
      showTheme(theme);
    } else if (button.matches(".chip")) {
      const outcome = button.dataset.outcome;
      if (!wanted.delete(outcome)) wanted.add(outcome);
      filter();
    } else if (button.matches(".pick")) {
      find(query === button.dataset.find ? "" : button.dataset.find);
      one("#tests").scrollIntoView();
    } else if (button.matches("[data-toggle-all]")) openAll(button.getAttribute("aria-pressed") !== "true");
    else if (button.matches(".copy")) copy(button);
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches(".find input")) find(event.target.value);
  });
  document.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.(".journal") && event.target.open) unpack(one("pre", event.target));
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.target.matches?.(".find input") && event.key === "Escape") find("");
    // Arrow keys go from test to test while one has the focus.
    const summary = event.target.closest?.(".test > details > summary");
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!summary || event.target !== summary || !(step || event.key === "Home" || event.key === "End")) return;
    const rows = all(".test:not([hidden]) > details > summary");
    const at = event.key === "Home" ? 0 : event.key === "End" ? rows.length - 1 : rows.indexOf(summary) + step;
    if (rows[at]) { rows[at].focus(); event.preventDefault(); }
  });
  addEventListener("hashchange", openTarget);
  addEventListener("beforeprint", () => { for (const details of all(".test:not([hidden]) > details")) if (!details.open) { details.open = true; details.printed = true; } });
  addEventListener("afterprint", () => { for (const details of all(".test > details")) if (details.printed) { details.open = false; details.printed = false; } });

  // Live: take over a newer page, and keep what the reader opened.
  function take(text) {
    const next = new DOMParser().parseFromString(text, "text/html");
    const known = new Set(all(".test").map((test) => test.id));
    const opened = new Set(all("details[open]").map(place));
    const focused = document.activeElement?.closest(".test")?.id;
    const inField = document.activeElement?.matches(".find input");
    document.title = next.title;
    one("#main").replaceWith(document.adoptNode(one("#main", next)));
    one(".top nav").replaceWith(document.adoptNode(one(".top nav", next)));
    for (const details of all("details")) {
      const test = details.closest(".test");
      if (!test || known.has(test.id)) details.open = opened.has(place(details));
      if (details.open && details.matches(".journal")) unpack(one("pre", details));
    }
    start();
    if (inField) one(".find input").focus();
    else if (focused) one("summary", document.getElementById(focused) ?? document)?.focus({ preventScroll: true });
  }
  function place(details) {
    const test = details.closest(".test");
    return test ? `${test.id} ${all("details", test).indexOf(details)}` : "";
  }
  async function follow() {
    let tag = "", missed = 0;
    const status = one(".live");
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      try {
        const reply = await fetch("page", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
        missed = 0;
        if (reply.status === 200) {
          tag = reply.headers.get("ETag");
          take(await reply.text());
        }
        if (reply.headers.get("X-Session") === "ended") break;
      } catch {
        missed += 1;
        if (missed > 2) break;
      }
    }
    status.textContent = "session ended";
    status.classList.add("over");
  }

  start();
  openTarget();
  if ("live" in root.dataset) follow();
})();
