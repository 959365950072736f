const figures = $figures, curves = $curves;
const dark = matchMedia("(prefers-color-scheme: dark)");
function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const [ink, faint] = ["--ink", "--faint"].map(name => style.getPropertyValue(name).trim());
  const axis = { gridcolor: faint, zerolinecolor: ink, linecolor: ink, tickcolor: ink };
  return { ...layout, font: { color: ink }, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)", modebar: { bgcolor: "rgba(0,0,0,0)", color: ink, activecolor: ink }, xaxis: { ...layout.xaxis, ...axis },
    yaxis: { ...layout.yaxis, ...axis } };
}
function draw(id, figure) {
  Plotly.react(id, figure.data, themed(figure.layout), { responsive: true, displaylogo: false });
}
function drawCurve() {
  const curve = curves[document.getElementById("regions").selectedIndex];
  const [bars] = figures.curve.data;
  const base = curve.low.map(low => low === null ? null : Math.min(low, 0));
  const [x, y] = [[], []];
  curve.low.forEach((low, i) => {
    x.push(curve.first + (i + 0.5) * curve.step - 0.5);
    y.push(low === null ? null : Math.max(curve.high[i], 0) - base[i]);
  });
  const customdata = curve.low.map((low, i) => [low, curve.high[i]]);
  document.getElementById("curve").setAttribute("aria-label", "Scores along " + curve.name);
  draw("curve", { data: [{ ...bars, x, y, base, customdata, width: curve.step }],
    layout: { ...figures.curve.layout, xaxis: { ...figures.curve.layout.xaxis, title: { text: curve.title } } } });
}
function drawAll() {
  drawCurve();
  for (const id of Object.keys(figures)) if (id !== "curve") draw(id, figures[id]);
}
document.getElementById("regions").addEventListener("change", drawCurve);
dark.addEventListener("change", drawAll);
drawAll();
document.body.dataset.ready = "yes";
