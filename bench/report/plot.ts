// The figures as an SVG: one panel per case, one bar per server, a whisker for the spread.

import { ALL_SERVERS, isOwn } from "../cases/all.ts";
import { amount, type Figure, type Report } from "./report.ts";

const WIDTH = 880;
const COLUMNS = 2;
const GAP = 24;
const PANEL = (WIDTH - GAP * (COLUMNS + 1)) / COLUMNS;
const NAME_WIDTH = 112;
const VALUE_WIDTH = 84;
const BAR = 14;
const STEP = 22;
const HEAD = 30;
const TOP = 64;
const OWN = ALL_SERVERS.filter(isOwn).map(({ name }) => name);
const LEGEND =
  "deno: shouty on Deno's sockets; lines: the same, by its conversation handler. go: the article's server. " +
  "c: bare epoll, no lines, no limits. naive: Deno's web streams.";

// The picture has its own background, readable on any page, in the reader's light or dark scheme.
const STYLE = `
  .page { fill: #ffffff } .text { fill: #1f2328 } .faint { fill: #59636e } .bar { fill: #afb8c1 }
  .own { fill: #0969da } .whisker { stroke: #1f2328; stroke-width: 1.5; opacity: 0.6 }
  text { font: 12px ui-sans-serif, system-ui, sans-serif } .head { font-weight: 600 } .title { font-size: 15px }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .text { fill: #f0f6fc } .faint { fill: #9198a1 } .bar { fill: #57606a }
    .own { fill: #4493f8 } .whisker { stroke: #f0f6fc }
  }`;

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function text(x: number, y: number, style: string, content: string): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" class="${style}">${escapeXml(content)}</text>`;
}

function bar(figure: Figure, x: number, y: number, scale: number): string {
  const left = x + NAME_WIDTH;
  const at = (value: number) => (left + value * scale).toFixed(1);
  const middle = (y + BAR / 2).toFixed(1);
  const own = OWN.includes(figure.server);
  const value = amount(figure.median, figure.unit) + (figure.loadBound ? " *" : "");
  return [
    text(x, y + BAR - 3, own ? "text head" : "text", figure.server),
    `<rect x="${left}" y="${y}" width="${(figure.median * scale).toFixed(1)}" height="${BAR}" rx="2" ` +
    `class="${own ? "own" : "bar"}"/>`,
    `<path d="M${at(figure.min)} ${middle}H${at(figure.max)}" class="whisker"/>`,
    text(left + figure.max * scale + 6, y + BAR - 3, "text", value),
  ].join("\n");
}

function panel(figures: Figure[], x: number, y: number): string {
  const scale = (PANEL - NAME_WIDTH - VALUE_WIDTH) / Math.max(...figures.map((figure) => figure.max));
  const { title, unit } = figures[0];
  const less = unit === "bytes" ? ", less is better" : "";
  return [
    text(x, y + 12, "text head", title),
    text(x, y + 12 + 15, "faint", `${unit === "bytes" ? "resident memory" : unit}${less}`),
    ...figures.map((figure, i) => bar(figure, x, y + HEAD + 6 + i * STEP, scale)),
  ].join("\n");
}

/** Draws the cases with a unit. The cases about flat costs are single ratios, which only the table shows. */
export function plot(report: Report): string {
  const figures = report.figures.filter((figure) => figure.unit !== "×");
  const panels = [...Map.groupBy(figures, (figure) => figure.case).values()];
  const parts: string[] = [];
  let y = TOP;
  for (let i = 0; i < panels.length; i += COLUMNS) {
    const row = panels.slice(i, i + COLUMNS);
    row.forEach((figures, column) => parts.push(panel(figures, GAP + column * (PANEL + GAP), y)));
    y += HEAD + 6 + Math.max(...row.map((figures) => figures.length)) * STEP + GAP;
  }
  const method = `Medians of ${report.rounds} alternating rounds of ${report.seconds} s; the line in a bar shows the ` +
    `spread; * the load generator was the limit.`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y + GAP}" width="${WIDTH}" height="${
      y + GAP
    }" role="img" ` +
    `aria-label="Benchmark of shouty and its peers">`,
    `<style>${STYLE}\n</style>`,
    `<rect width="100%" height="100%" rx="6" class="page"/>`,
    text(GAP, 28, "text head title", "shouty and its peers, server on one core"),
    text(GAP, 46, "faint", method),
    ...parts,
    text(GAP, y, "faint", LEGEND),
    "</svg>\n",
  ].join("\n");
}
