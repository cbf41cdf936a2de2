import { html, useEffect, useRef, useState } from '../html.js';
import { themeChanged } from './theme-switch.js';
import uPlot from '../../vendor/uplot.js';
import { clockTime, count, rate } from '../format.js';

/** The colour a class has at this moment, in the theme in force. */
function colour(place, name) {
  const probe = document.createElement('i');
  probe.className = name;
  place.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

// What is counted has no halves.
const wholeSteps = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map(step => step * 10 ** power)).flat();

const dashes = [[], [6, 4], [2, 3], [10, 3, 2, 3]];

/**
 * Lines over time. Series differ by dash and name, not by colour alone; the newest values stand beside the names, and all of them in a table.
 * @param series [{label, tone, values, fill?, format?}]
 */
export function Chart({ title, summary, at, series, unit }) {
  const place = useRef();
  const plot = useRef(null);
  const [cursor, setCursor] = useState(null);
  const theme = themeChanged.use();
  const data = [at, ...series.map(one => one.values)];
  const shape = series.map(one => one.label).join();
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    const box = place.current;
    const quiet = colour(box, 'tone-axis');
    const grid = colour(box, 'tone-grid');
    const font = '11px Inter, system-ui, sans-serif';
    const size = () => ({ width: Math.max(160, box.clientWidth), height: 190 });
    plot.current = new uPlot({
      ...size(),
      legend: { show: false },
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(high ?? 0, 1) * 1.15] } },
      axes: [
        { stroke: quiet, font, grid: { show: false }, ticks: { show: false }, gap: 4, size: 26, space: 70, values: (_, splits) => splits.map(split => clockTime(split * 1000).slice(0, splits.length > 1 && splits[1] - splits[0] < 60 ? 8 : 5)) },
        { stroke: quiet, font, grid: { stroke: grid, width: 1 }, ticks: { show: false }, gap: 6, size: 44, space: 36, incrs: wholeSteps, values: (_, splits) => splits.map(split => (split >= 1000 ? `${+(split / 1000).toFixed(1)}k` : +split.toFixed(2))) },
      ],
      series: [{}, ...series.map((one, index) => {
        const stroke = colour(box, `tone-${one.tone}`);
        return {
          label: one.label, stroke, width: 1.75, dash: dashes[index], points: { show: false }, spanGaps: false,
          fill: one.fill ? stroke.replace(/^rgb\((.*)\)$/, 'rgba($1, 0.12)') : undefined,
        };
      })],
      hooks: { setCursor: [self => setCursor(self.cursor.idx ?? null)] },
    }, latest.current, box);
    const watch = new ResizeObserver(() => plot.current?.setSize(size()));
    watch.observe(box);
    return () => {
      watch.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [shape, theme]);

  useEffect(() => plot.current?.setData(data), [at, ...series.map(one => one.values)]);

  const index = cursor !== null && cursor < at.length ? cursor : at.length - 1;
  const every = Math.max(1, Math.ceil(at.length / 30));
  const rows = at.map((_, position) => position).filter(position => (at.length - 1 - position) % every === 0).reverse();
  return html`
    <figure class="chart">
      <figcaption><span class="chart-title">${title} <span class="quiet">${unit}</span></span>
        <span class="legend">${series.map((one, position) => html`<span class="legend-item" key=${one.label}><svg class=${`legend-line tone-${one.tone}`} viewBox="0 0 20 4" aria-hidden="true"><line x1="0" y1="2" x2="20" y2="2" stroke-dasharray=${dashes[position].join(' ') || undefined} /></svg>${one.label} <b>${(one.format ?? rate)(one.values[index])}</b></span>`)}
          ${cursor !== null && at[index] !== undefined && html`<span class="quiet">${clockTime(at[index] * 1000)}</span>`}</span></figcaption>
      <div class="plot" ref=${place} role="img" aria-label=${`${title}. ${summary}`}></div>
      <p class="hidden">${summary}</p>
      <details class="as-table"><summary>Show as table</summary>
        <div class="table-wrap" tabindex="0" role="region" aria-label=${`${title} as a table`}><table class="plain"><thead><tr><th scope="col">Time</th>${series.map(one => html`<th scope="col" class="number">${one.label}</th>`)}</tr></thead>
          <tbody>${rows.map(position => html`<tr key=${at[position]}><th scope="row">${clockTime(at[position] * 1000)}</th>${series.map(one => html`<td class="number">${(one.format ?? count)(one.values[position])}</td>`)}</tr>`)}</tbody></table></div>
      </details>
    </figure>`;
}

/** Letters in each of the last hours, oldest first: small bars without axes, and the same in words. */
export function Hourly({ values }) {
  const top = Math.max(1, ...values);
  const most = values.indexOf(Math.max(...values));
  const words = `Letters in each of the last ${values.length} hours: ${count(values.at(-1))} in the last one, ${count(values.reduce((sum, value) => sum + value, 0))} in all${values[most] > 0 && most < values.length - 1 ? `, most ${values.length - 1 - most} h ago: ${count(values[most])}` : ''}`;
  return html`<svg class="bars" viewBox=${`0 0 ${values.length * 4} 20`} role="img" aria-label=${words} preserveAspectRatio="none"><title>${words}</title>${values.map((value, index) => {
    const height = value ? Math.max(2, (value / top) * 20) : 0.6;
    return html`<rect key=${index} class=${value ? '' : 'none'} x=${index * 4} width="3" y=${20 - height} height=${height} />`;
  })}</svg>`;
}
