const figure = $figure, sequences = { xaxis: $read, yaxis: $mutated };
const pixels = 11; // of a letter
const dark = matchMedia("(prefers-color-scheme: dark)");
const map = document.getElementById("map");
function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim();
  const clear = "rgba(0,0,0,0)";
  return { ...layout, font: { color: ink }, paper_bgcolor: clear, plot_bgcolor: clear,
    modebar: { bgcolor: clear, color: ink, activecolor: ink } };
}
function ticks(name) {
  const { range: [from, to], _length: length } = map._fullLayout[name], sequence = sequences[name];
  const first = Math.max(sequence.first, Math.ceil(Math.min(from, to)));
  const last = Math.min(sequence.first + sequence.letters.length - 1, Math.floor(Math.max(from, to)));
  if (length < pixels * Math.abs(to - from)) return { [name + ".tickmode"]: "auto" };
  const shown = [...Array(Math.max(0, last - first + 1)).keys()].map(i => first + i);
  return { [name + ".tickmode"]: "array", [name + ".tickangle"]: 0, [name + ".tickvals"]: shown,
    [name + ".ticktext"]: shown.map(at => sequence.letters[at - sequence.first]) };
}
let busy = false;
async function letterTicks() {
  if (busy) return;
  busy = true;
  const names = Object.keys(sequences).filter(name => sequences[name] !== null);
  await Plotly.relayout(map, Object.assign({}, ...names.map(ticks)));
  busy = false;
}
async function draw() {
  await Plotly.react(map, figure.data, themed(figure.layout), { responsive: true, displaylogo: false });
  await letterTicks();
  document.body.dataset.ready = "yes";
}
dark.addEventListener("change", draw);
draw().then(() => map.on("plotly_relayout", letterTicks));
