// Opens igv.js. Text is put into the page as text, never as HTML.
const config = $config;
const names = new Map($names);
const BASES_PER_PIXEL = 10;  // igv.js shows no bases beyond
const ROW_CENTRE = 16;  // of the first row of features in igv.js, in pixels from the top
const LETTER = 5;  // width in pixels from which letters can be read
config.tracks = config.tracks.map(track => track.type !== "wig" ? track : {
  type: "merged", name: track.name, about: track.about, unit: track.unit, height: track.height, alpha: 1,
  ...(track.limits ? { min: track.limits[0], max: track.limits[1] } : { autoscale: true }),
  tracks: ["max", "min"].map(windowFunction => ({ ...track, windowFunction })),
});
const styles = "@media (max-width: 48rem) {" +
  ".igv-navbar, .igv-navbar .igv-navbar-left-container, .igv-navbar .igv-navbar-genomic-location, " +
  ".igv-navbar .igv-navbar-right-container { flex-wrap: wrap; height: auto !important; }" +
  ".igv-navbar .igv-navbar-left-container .igv-current-genome { display: none; }" +
  ".igv-navbar .igv-navbar-left-container .igv-navbar-genomic-location .igv-locus-size-group { margin-left: 0; } }" +
  ".igv-viewport-message { font: 12px sans-serif; color: #606060; position: absolute; top: 50%; left: 50%; " +
  "transform: translate(-50%, -50%); white-space: nowrap; }";
// A locus with the name that igv.js uses; names contain colons, so the longest known name is replaced.
function igvLocus(locus) {
  for (let end = locus.length; end > 0; end = locus.lastIndexOf(":", end - 1)) {
    const name = names.get(locus.slice(0, end));
    if (name !== undefined) return name + locus.slice(end);
  }
  return locus;
}
const shownNames = new Map(Array.from(names, ([shown, name]) => [name, shown]));
function shownLocus(locus) {
  const [name] = locus.split(":", 1);
  return shownNames.has(name) ? shownNames.get(name) + locus.slice(name.length) : locus;
}
// igv.js itself would insert the names of features as HTML.
function popup(track, rows) {
  if (!rows || !rows.length) return undefined;
  const box = document.createElement("div");
  for (const row of rows) {
    if (typeof row === "string") {
      if (row.startsWith("<hr")) box.append(document.createElement("hr"));
      else box.append(Object.assign(document.createElement("div"), { textContent: row }));
      continue;
    }
    const label = String(row.name ?? "").replaceAll("&nbsp;", "\u00a0").trim();
    const located = /^(location|position)/i.test(label);
    const value = located ? shownLocus(String(row.value)) : String(row.value);
    const line = Object.assign(document.createElement("div"), { title: value });
    line.append(Object.assign(document.createElement("span"), { textContent: label }), "\u00a0\u00a0\u00a0" + value);
    box.append(line);
  }
  return box.innerHTML;
}
// Messages of igv.js repeat what was typed, and are inserted as HTML.
function alertText(alert) {
  const present = alert.present;
  alert.present = (problem, ...rest) => {
    const text = String(problem.message ?? problem).replace(/<\/?b>/g, "");
    const message = Object.assign(document.createElement("div"), { textContent: text }).innerHTML;
    present.call(alert, problem.message === undefined ? message : { message }, ...rest);
  };
}
// The values of a track at the place of a click, with the digits that a float32 and a reader have use for.
function values(state) {
  const rounded = value => String(Number(value.toPrecision(4)));
  const [high, low] = this.clickedFeatures(state).map(found => found.features);
  if (!high?.length) return [];
  const start = Math.min(...high.map(one => one.start)), end = Math.max(...high.map(one => one.end));
  const highest = Math.max(...high.map(one => one.value)), lowest = Math.min(...low.map(one => one.value));
  const place = [start + 1, end].map(at => Math.round(at).toLocaleString("en-US"));
  return [
    { name: "Position", value: end - start <= 1 ? place[0] : place.join("-") },
    ...(highest === lowest ? [{ name: "Value", value: rounded(highest) }]
      : [{ name: "Highest value", value: rounded(highest) }, { name: "Lowest value", value: rounded(lowest) }]),
    ...(this.config.unit ? [{ name: "Unit", value: this.config.unit }] : []),
  ];
}
// igv.js itself would fail on a description that is text.
function about() {
  const row = document.createElement("div");
  row.style.margin = "0 12px";
  row.textContent = this.config.about;
  return row;
}
// Letters narrower than LETTER are drawn as bars.
function readableLetters(track) {
  const draw = track.draw;
  track.draw = function (options) {
    const graphType = this.graphType;
    if (graphType === "dynseq" && options.bpPerPixel * LETTER > 1) this.graphType = "bar";
    draw.call(this, options);
    this.graphType = graphType;
  };
}
// A line through the first row of the variants, between them.
function baseline(track) {
  const draw = track.draw;
  track.draw = function (options) {
    draw.call(this, options);
    const { context, pixelWidth } = options;
    context.save();
    context.globalCompositeOperation = "darken";  // not over the variants, which are darker
    context.fillStyle = "#c8c8c8";
    context.fillRect(0, ROW_CENTRE, pixelWidth, 1);
    context.restore();
  };
}
// An axis without values has no numbers.
function blankAxis(track) {
  const paintAxis = track.paintAxis;
  track.paintAxis = function (context, width, height) {
    if (!this.isEmpty) return paintAxis.call(this, context, width, height);
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
  };
}
// Labels of the ruler that the edges would cut are left out.
function wholeLabels(ruler) {
  const draw = ruler.draw;
  ruler.draw = function (options) {
    const { context, pixelXOffset, viewportWidth } = options;
    if (!(viewportWidth > 0)) return draw.call(this, options);
    const fillText = context.fillText;
    context.fillText = function (text, x, ...rest) {
      const left = x + pixelXOffset;
      if (left >= 0 && left + this.measureText(text).width <= viewportWidth) fillText.call(this, text, x, ...rest);
    };
    draw.call(this, options);
    delete context.fillText;
  };
}
// Say where there is nothing to see, and why.
function messages(browser) {
  for (const view of browser.trackViews) {
    const { track } = view, [viewport] = view.viewports;
    if (!viewport) continue;
    const { start, bpPerPixel } = viewport.referenceFrame, end = start + viewport.getWidth() * bpPerPixel;
    if (track.type === "sequence") {
      if (bpPerPixel > BASES_PER_PIXEL) viewport.showMessage("zoom in to see the bases");
      else viewport.hideMessage();
    }
    if (track.type !== "merged" || !viewport.featureCache) continue;
    const found = viewport.featureCache.features.featureArrays ?? [];
    const isEmpty = !found.some(features => features.some(one => one.end > start && one.start < end));
    if (isEmpty) viewport.showMessage("no values here");
    else viewport.hideMessage();
    if (isEmpty === Boolean(track.isEmpty)) continue;
    track.isEmpty = isEmpty;
    view.paintAxis();
  }
}
igv.createBrowser(document.getElementById("browser"), config)
  .then(async browser => {
    const root = document.getElementById("browser").shadowRoot, sheet = new CSSStyleSheet();
    sheet.replaceSync(styles);
    root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];
    const search = browser.search;
    browser.search = (text, ...rest) =>
      search.call(browser, String(text).trim().split(/\s+/).map(igvLocus).join(" "), ...rest);
    browser.on("trackclick", popup);
    alertText(browser.alert);
    for (const { track } of browser.trackViews) {
      if (track.type === "ruler") wholeLabels(track);
      if (track.config?.baseline) baseline(track);
      if (track.type !== "merged") continue;
      Object.assign(track, { popupData: values, description: about });
      track.tracks.forEach(readableLetters);
      blankAxis(track);
    }
    let waiting = false;
    const update = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        browser.rulerTrackView?.repaintViews();
        messages(browser);
      });
    };
    for (const event of ["locuschange", "featuresloaded"]) browser.on(event, update);
    browser.trackViews.forEach(view => view.repaintViews());
    update();
    const places = document.getElementById("places");
    places.addEventListener("change", () => browser.search(places.value));
    document.body.dataset.ready = "yes";
  })
  .catch(error => { document.body.prepend(String(error)); });
