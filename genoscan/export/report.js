const figures = $figures, curves = $curves, axes = $axes;
const dark = matchMedia("(prefers-color-scheme: dark)");
const HEIGHTS = { first: 250, other: 110, lane: 26, gap: 16, margins: 75 };  // pixels
const WIDTHS = [1, 5, 11];  // of introns, untranslated and coding exons, in pixels
const LETTER = 6.5;  // width in pixels of a letter in the name of a gene
function colours() {
  const style = getComputedStyle(document.documentElement);
  return ["--ink", "--faint", "--gene"].map(name => style.getPropertyValue(name).trim());
}
function themed(layout) {
  const [ink, faint] = colours(), clear = "rgba(0,0,0,0)";
  const axis = { gridcolor: faint, zerolinecolor: ink, linecolor: ink, tickcolor: ink };
  const axes = Object.keys(layout).filter(name => /^[xy]axis/.test(name)).map(name => [name, { ...layout[name], ...axis }]);
  return { ...layout, font: { color: ink }, paper_bgcolor: clear, plot_bgcolor: clear,
    modebar: { bgcolor: clear, color: ink, activecolor: ink }, ...Object.fromEntries(axes) };
}
function draw(id, figure) {
  Plotly.react(id, figure.data, themed(figure.layout), { responsive: true, displaylogo: false });
}
// Bars from the lowest to the highest value of each bin, and to 0.
function bars(curve, { low, high }, yaxis) {
  const base = low.map(value => value === null ? null : Math.min(value, 0));
  return { ...figures.curve.data[0], yaxis, base, width: curve.step,
    x: low.map((_, i) => curve.first + (i + 0.5) * curve.step - 0.5),
    y: low.map((value, i) => value === null ? null : Math.max(high[i], 0) - base[i]),
    customdata: low.map((value, i) => [value, high[i]]) };
}
// Lines of three widths, and the names that have room below them.
function genes(curve, width, yaxis) {
  const { names, bars } = curve.genes, [, , colour] = colours();
  const lines = WIDTHS.map((line, height) => {
    const found = bars.filter(bar => bar[3] === height);
    return { type: "scatter", mode: "lines", yaxis, line: { color: colour, width: line }, hoverinfo: "text",
      x: found.flatMap(([first, last]) => [first - 0.5, last + 0.5, null]),
      y: found.flatMap(([, , lane]) => [-lane, -lane, null]),
      text: found.flatMap(([, , , , name]) => [names[name], names[name], null]) };
  });
  const length = curve.tracks[0].low.length * curve.step, taken = [];
  const shown = bars.filter(([first, last, lane, height, name]) => {
    if (height > 0) return false;
    const middle = (first + last) / 2, half = names[name].length * LETTER * length / width / 2;
    if (middle - half < (taken[lane] ?? curve.first) || middle + half > curve.first + length) return false;
    taken[lane] = middle + half;
    return true;
  });
  return [...lines, { type: "scatter", mode: "text", yaxis, hoverinfo: "skip", textfont: { size: 11 },
    x: shown.map(([first, last]) => (first + last) / 2), y: shown.map(([, , lane]) => -lane - 0.48),
    text: shown.map(([, , , , name]) => names[name]) }];
}
function drawCurve() {
  const curve = curves[document.getElementById("regions").selectedIndex];
  const box = document.getElementById("curve"), { lanes, omitted } = curve.genes;
  const heights = curve.tracks.map((_, i) => i ? HEIGHTS.other : HEIGHTS.first);
  if (lanes) heights.push(lanes * HEIGHTS.lane);
  const total = heights.reduce((sum, height) => sum + height + HEIGHTS.gap, -HEIGHTS.gap);
  box.style.height = total + HEIGHTS.margins + "px";
  box.setAttribute("aria-label", "Scores along " + curve.name);
  const layout = { ...figures.curve.layout, xaxis: { ...figures.curve.layout.xaxis, title: { text: curve.title },
    tickformat: ",d", anchor: "free", position: 0 }, annotations: [] };
  const data = [];
  let top = total;
  heights.forEach((height, i) => {
    const name = i ? "y" + (i + 1) : "y", isGenes = i === curve.tracks.length;
    layout[name.replace("y", "yaxis")] = { ...layout.yaxis, domain: [Math.max(0, top - height) / total, top / total],
      ...(isGenes ? { visible: false, fixedrange: true, range: [-lanes + 0.2, 0.45], title: { text: "" } }
        : { title: { text: axes[i].length > 20 ? axes[i].slice(0, 19) + "…" : axes[i] }, nticks: i ? 4 : 8 }) };
    if (!isGenes && curve.tracks[i].low.every(value => value === null)) {
      layout[name.replace("y", "yaxis")].showticklabels = false;
      layout.annotations.push({ text: "no values here", showarrow: false, xref: "paper", x: 0.5, yref: name + " domain",
        y: 0.5 });
    }
    data.push(...(isGenes ? genes(curve, box.clientWidth - 80, name) : [bars(curve, curve.tracks[i], name)]));
    top -= height + HEIGHTS.gap;
  });
  const end = curve.first + curve.tracks[0].low.length * curve.step;
  layout.xaxis.range = [curve.first - 0.5, end - 0.5];
  const rest = lanes ? " more transcripts are not drawn." : " transcripts are too many to be drawn along this region.";
  document.getElementById("omitted").textContent = omitted ? omitted.toLocaleString("en-US") + rest : "";
  draw("curve", { data, layout });
}
function drawAll() {
  if (curves.length) drawCurve();
  for (const id of Object.keys(figures)) if (id !== "curve") draw(id, figures[id]);
}
document.getElementById("regions").addEventListener("change", drawCurve);
dark.addEventListener("change", drawAll);
drawAll();
document.body.dataset.ready = "yes";
