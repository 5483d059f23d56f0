// What the pages do beyond plain HTML: times in the viewer's zone, live figures, charts made from tables.
"use strict";

(() => {
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

  // ── times ───────────────────────────────────────────────────────────────────

  function localTimes(root) {
    const today = new Date().toDateString();
    for (const element of root.querySelectorAll("time[datetime]:not([data-done])")) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      element.textContent = at.toDateString() === today ? clock.format(at) : full.format(at);
      element.dataset.done = "";
    }
    for (const input of root.querySelectorAll("input[name=zone]")) input.value = zone;
  }

  // ── charts ──────────────────────────────────────────────────────────────────

  const usualInks = ["--lead", "--gold", "--bad"];

  const axisClock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const axisSeconds = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const axisDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

  function axisTime(at, step) {
    const moment = new Date(at * 1000);
    if (step >= 86400) return axisDay.format(moment);
    return (step < 60 ? axisSeconds : axisClock).format(moment);
  }

  function axes(unit) {
    const line = { stroke: style("--line"), width: 1 };
    const common = { stroke: style("--soft"), grid: line, ticks: line, font: "11px system-ui, sans-serif" };
    return [
      { ...common, space: 90, size: 28, values: (_, ticks, __, ___, step) => ticks.map((at) => axisTime(at, step)) },
      { ...common, size: 58, values: (_, ticks) => ticks.map((v) => v.toLocaleString() + (unit || "")) },
    ];
  }

  function plot(element, names, data, unit, shortest, inks = usualInks) {
    element.replaceChildren();
    const series = names.map((label, index) => ({
      label,
      stroke: style(inks[index % inks.length]),
      fill: index === 0 ? style(inks[0]) + "1f" : undefined,
      width: 1.75,
      points: { show: (chart) => chart.data[0].length < 3 },
      spanGaps: false,
    }));
    const size = () => ({ width: element.clientWidth, height: element.clientHeight });
    const chart = new uPlot(
      {
        ...size(),
        legend: { show: false },
        cursor: { drag: { x: false, y: false } },
        scales: { x: { range: (_, low, high) => [Math.min(low, high - (shortest || 0)), high] }, y: { range: (_, low, high) => [0, Math.max(high || 0, 1) * 1.08] } },
        axes: axes(unit),
        series: [{}, ...series],
      },
      data,
      element,
    );
    new ResizeObserver(() => chart.setSize(size())).observe(element);
    return chart;
  }

  function chartsFromTables(root) {
    for (const figure of root.querySelectorAll("figure[data-chart]:not([data-done])")) {
      const table = figure.querySelector("table");
      const target = figure.querySelector(".plot");
      if (!table || !target) continue;
      figure.dataset.done = "";
      const names = [...table.querySelectorAll("thead th")].slice(1).map((cell) => cell.textContent);
      const data = [[], ...names.map(() => [])];
      for (const row of table.tBodies[0].rows) {
        [...row.cells].forEach((cell, index) => {
          const text = cell.dataset.value;
          data[index].push(text === undefined || text === "" ? null : Number(text));
        });
      }
      plot(target, names, data, figure.dataset.unit, 0, figure.dataset.inks?.split(" "));
    }
  }

  // ── live figures ────────────────────────────────────────────────────────────

  function liveRates() {
    const element = document.getElementById("rates");
    if (!element) return () => {};
    const kept = JSON.parse(element.dataset.samples || "[]");
    const columns = () => {
      const points = [];
      kept.forEach((sample, index) => {
        // Between two looks that lie apart, nobody looked: the line has a gap there.
        if (index && sample[0] - kept[index - 1][0] > 5) points.push([sample[0] - 1, null, null, null]);
        points.push(sample);
      });
      return [0, 1, 2, 3].map((column) => points.map((point) => point[column]));
    };
    let chart = null;
    const draw = () => {
      if (chart) chart.setData(columns());
      else chart = plot(element, ["accepted", "sent", "again"], columns(), "", 60);
    };
    if (kept.length) draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      chart = null;
      draw();
    });
    return (sample) => {
      if (kept.length && sample[0] <= kept[kept.length - 1][0]) return; // the page came with it
      kept.push(sample);
      if (kept.length > 300) kept.shift();
      draw();
    };
  }

  function live() {
    const source = document.querySelector("[data-live]");
    if (!source) return;
    const lamp = document.getElementById("pulse");
    const say = (word, text) => {
      if (lamp.textContent !== text) lamp.textContent = text;
      lamp.className = "pulse " + word;
    };
    const sampled = liveRates();
    const title = document.title;
    const tellInTitle = () => {
      const firing = Number(document.querySelector("[data-firing]")?.dataset.firing || 0);
      document.title = firing ? `(${firing}) ${title}` : title;
    };
    tellInTitle();
    const regions = [...document.querySelectorAll("[data-event]")].map((region) => ({ region, shown: null }));
    let stream = null;
    const connect = () => {
      stream = new EventSource(source.dataset.live);
      stream.onerror = () => {
        say("off", "connecting again");
        // After an answer that is no stream, as while the store is away, the browser does not try again by itself.
        if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
      };
      stream.addEventListener("sample", (event) => {
        say("on", "live");
        sampled(JSON.parse(event.data));
      });
      stream.addEventListener("blind", () => say("off", "no news: the store does not answer"));
      stream.addEventListener("gone", () => location.reload());
      for (const each of regions) {
        stream.addEventListener(each.region.dataset.event, (event) => {
          // What somebody reads or points at stays as it is until they leave it.
          const { region } = each;
          if (event.data === each.shown || region.contains(document.activeElement)) return;
          if (region.matches(":hover") && region.querySelector("a")) return;
          each.shown = event.data;
          region.innerHTML = event.data;
          localTimes(region);
          tellInTitle();
        });
      }
    };
    connect();
    addEventListener("pagehide", () => stream.close());
  }

  // ── small things ────────────────────────────────────────────────────────────

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = document.getElementById(button.dataset.copy).textContent;
    navigator.clipboard.writeText(text).then(() => {
      button.textContent = "Copied";
    });
  });

  function showToday(root) {
    for (const heat of root.querySelectorAll(".heat")) {
      const ahead = heat.querySelector(".ahead");
      if (ahead) heat.scrollLeft += ahead.getBoundingClientRect().left - heat.getBoundingClientRect().right + 48;
    }
  }

  function dress(root) {
    localTimes(root);
    showToday(root);
    chartsFromTables(root);
  }

  document.addEventListener("DOMContentLoaded", () => {
    dress(document);
    const here = document.querySelector(".nav a[aria-current]");
    if (here) here.scrollIntoView({ block: "nearest", inline: "center" });
    live();
  });
  document.addEventListener("htmx:afterSettle", (event) => dress(event.target.parentElement || document));
})();
