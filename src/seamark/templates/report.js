// Draws the report's charts and switches its theme; everything else on the page works without it.
(function () {
  "use strict";
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const themes = { auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark" };

  function setTheme(name) {
    if (name === "auto") delete root.dataset.theme;
    else root.dataset.theme = name;
    button.textContent = themes[name];
  }
  button.hidden = false;
  button.addEventListener("click", function () {
    const names = Object.keys(themes);
    setTheme(names[(names.indexOf(root.dataset.theme || "auto") + 1) % names.length]);
  });
  setTheme("auto");

  // The tip is built from text nodes: rater ids and labels are never read as HTML.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  function showTip(_, event, __, value) {
    tip.hidden = !value;
    if (!value) return;
    tip.replaceChildren(...Object.entries(value).map(function ([key, text]) {
      const line = document.createElement("div");
      const name = document.createElement("b");
      name.textContent = key;
      line.append(name, text === "null" || text === null ? "–" : String(text));
      return line;
    }));
    const right = event.clientX + 16 + tip.offsetWidth < window.innerWidth;
    tip.style.left = (right ? event.clientX + 14 : Math.max(4, event.clientX - 14 - tip.offsetWidth)) + "px";
    tip.style.top = Math.max(4, Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 6)) + "px";
  }

  const config = JSON.parse(document.getElementById("chart-style").textContent);
  for (const data of document.querySelectorAll('script[type="application/json"][data-chart]')) {
    const place = document.getElementById(data.dataset.chart);
    try {
      const spec = vegaLite.compile(JSON.parse(data.textContent), { config, logger: vega.logger(vega.Error) }).spec;
      // ast and the interpreter: no eval, so that the page's policy can forbid it.
      const view = new vega.View(vega.parse(spec, undefined, { ast: true }), {
        expr: vegaInterpreter.expressionInterpreter,
        renderer: "svg",
        container: place,
        hover: true,
        logLevel: vega.Warn,
      });
      view.tooltip(showTip);
      view.runAsync().then(function () { place.dataset.drawn = "yes"; });
    } catch (error) {
      place.classList.add("failed");
      place.textContent = "This chart could not be drawn (" + error.message + "). The table below has its numbers.";
      console.error(error);
    }
  }

  let closed = [];
  window.addEventListener("beforeprint", function () {
    closed = Array.from(document.querySelectorAll("details.print:not([open])"));
    for (const element of closed) element.open = true;
  });
  window.addEventListener("afterprint", function () {
    for (const element of closed) element.open = false;
  });
})();
