const figure = $figure, names = $names;
const dark = matchMedia("(prefers-color-scheme: dark)");
const plot = document.getElementById("profile"), row = document.getElementById("row");
function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const [ink, faint] = ["--ink", "--faint"].map(name => style.getPropertyValue(name).trim());
  const clear = "rgba(0,0,0,0)";
  const axis = { gridcolor: faint, zerolinecolor: ink, linecolor: ink, tickcolor: ink };
  const axes = Object.keys(layout).filter(name => /^[xy]axis/.test(name));
  return { ...layout, font: { ...layout.font, color: ink }, paper_bgcolor: clear, plot_bgcolor: clear,
    modebar: { bgcolor: clear, color: ink, activecolor: ink },
    ...Object.fromEntries(axes.map(name => [name, { ...layout[name], ...axis }])) };
}
// Tooltips name the region of a row. Plotly shows markup in texts, so that names are escaped.
const escaped = names.map(name => name.replaceAll("&", "&amp;").replaceAll("<", "&lt;"));
for (const trace of figure.data.filter(one => one.type === "heatmap")) {
  const width = trace.z.shape ? Number(trace.z.shape.split(",")[1]) : trace.z[0].length;
  trace.text = escaped.map(name => Array(width).fill(name));
  trace.hovertemplate = "%{text}<br>" + trace.hovertemplate;
}
async function draw() {
  await Plotly.react(plot, figure.data, themed(figure.layout), { responsive: true, displaylogo: false });
  document.body.dataset.ready = "yes";
}
dark.addEventListener("change", draw);
draw().then(() => plot.on("plotly_hover", ({ points: [point] }) => {
  if (point.data.type === "heatmap") row.textContent = "Row " + point.y + ": " + names[point.y - 1];
}));
