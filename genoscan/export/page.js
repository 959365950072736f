// Opens igv.js. Text is put into the page as text, never as HTML.
const config = $config;
const names = new Map($names);
config.tracks = config.tracks.map(track => track.type !== "wig" ? track : {
  type: "merged", name: track.name, height: track.height, alpha: 1, autoscale: true,
  tracks: ["max", "min"].map(windowFunction => ({ ...track, windowFunction })),
});
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
igv.createBrowser(document.getElementById("browser"), config)
  .then(browser => {
    const search = browser.search;
    browser.search = (text, ...rest) =>
      search.call(browser, String(text).trim().split(/\s+/).map(igvLocus).join(" "), ...rest);
    browser.on("trackclick", popup);
    alertText(browser.alert);
    const places = document.getElementById("places");
    places.addEventListener("change", () => browser.search(places.value));
    document.body.dataset.ready = "yes";
  })
  .catch(error => { document.body.prepend(String(error)); });
