"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const runs = data.runs;
  const single = runs.length === 1;
  const names = runs[0].report.class_names;
  const palette = runs[0].report.palette ?? [];
  const isSegmentation = runs[0].report.task === "segmentation";
  const unit = isSegmentation ? "pixels" : "images";
  const color = (i) => `var(--run-${i % 8})`;
  const $ = (id) => document.getElementById(id);

  // Builds an element. What is text becomes a text node, so no name that a user
  // chose is ever read as markup.
  function make(tag, attributes = {}, ...children) {
    const svg = ["svg", "path", "line", "text", "g", "circle"].includes(tag);
    const element = svg
      ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name.startsWith("--")) element.style.setProperty(name, value);
      else if (value !== false && value != null) element.setAttribute(name, value);
    }
    element.append(...children.flat(Infinity).filter((child) => child != null));
    return element;
  }

  const defined = (x) => x != null;
  const percent = (x) => (defined(x) ? (100 * x).toFixed(2) : "–");
  const count = (x) => (defined(x) ? Math.round(x).toLocaleString("en") : "–");
  const signed = (x) => {
    if (!defined(x)) return "–";
    const text = (100 * Math.abs(x)).toFixed(2);
    return text === "0.00" ? text : `${x < 0 ? "−" : "+"}${text}`;
  };
  const difference = (a, b) => (defined(a) && defined(b) ? a - b : null);
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const brief = (x) => String(Number(x.toPrecision(3)));
  const swatch = (color) => make("i", { class: "swatch", style: `background: ${color}` });
  const classColor = (i) => (palette[i] ? `rgb(${palette[i].map(Number).join(" ")})` : "transparent");
  const className = (i) => [palette[i] ? swatch(classColor(i)) : null, names[i] ?? "ignored"];
  const duration = (seconds) => {
    const minutes = Math.round(seconds / 60);
    return minutes < 1 ? `${Math.round(seconds)} s` : minutes < 120 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
  };

  // A table that is sorted by a click on a title. A column has `title`, `value`
  // (what it is sorted by) and perhaps `show` (what a cell has in its place).
  function table(columns, rows, { sortBy = null, descending = true, limit = 200 } = {}) {
    let shown = limit;
    const body = make("tbody");
    const more = make("button", { class: "more", onclick: () => { shown = Infinity; draw(); } });
    const heads = columns.map((column, i) =>
      make("th", { class: column.number ? "number" : "", scope: "col" },
        make("button", {
          onclick: () => {
            descending = sortBy === i ? !descending : Boolean(column.number);
            sortBy = i;
            draw();
          },
        }, column.title)));
    function draw() {
      const sorted = [...rows];
      if (sortBy !== null) {
        const { value } = columns[sortBy];
        const order = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
        sorted.sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          // What is not defined comes last either way.
          if (!defined(x) || !defined(y)) return defined(y) - defined(x);
          return descending ? order(y, x) : order(x, y);
        });
      }
      heads.forEach((head, i) =>
        head.setAttribute("aria-sort", i !== sortBy ? "none" : descending ? "descending" : "ascending"));
      body.replaceChildren(...sorted.slice(0, shown).map((row) =>
        make("tr", {}, columns.map((column) => {
          const best = column.best?.(row) ? " best" : "";
          const content = [column.show ? column.show(row) : column.value(row)].flat();
          return make("td", { class: (column.number ? "number" : column.class ?? "") + best }, content);
        }))));
      more.hidden = rows.length <= shown;
      more.textContent = `Show all ${count(rows.length)}`;
    }
    draw();
    return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, heads)), body), more);
  }

  const ticks = (low, high) => {
    const rough = (high - low) / 5 || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 2.5, 5, 10].find((x) => x * power >= rough * 0.999);
    const found = [];
    for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + step * 1e-6; x += step) found.push(x);
    return found;
  };

  // A chart of lines; a series has `name`, `color`, `xs` and `ys`.
  function chart(title, series, { x = "step", format = brief, high = null, low = 0, width = 1 } = {}) {
    series = series.filter((line) => line.xs.length);
    if (!series.length) return null;
    const [w, h, left, bottom] = [420, 236, 44, 34];
    const xs = series.flatMap((line) => line.xs);
    const ys = series.flatMap((line) => line.ys);
    const start = Math.min(0, ...xs);
    const end = Math.max(...xs) || 1;
    const top = high ?? (1.05 * Math.max(...ys) || 1);
    const atX = (v) => left + ((v - start) / (end - start)) * (w - left - 8);
    const atY = (v) => h - bottom - ((v - low) / (top - low)) * (h - bottom - 8);
    const svg = make("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": title });
    for (const v of ticks(low, top)) {
      svg.append(make("line", { class: "grid", x1: left, x2: w - 8, y1: atY(v), y2: atY(v) }),
        make("text", { x: left - 8, y: atY(v) + 4, "text-anchor": "end" }, format(v)));
    }
    for (const v of ticks(start, end)) {
      svg.append(make("text", { x: atX(v), y: h - bottom + 18, "text-anchor": "middle" },
        v >= 10000 ? `${brief(v / 1000)}k` : brief(v)));
    }
    svg.append(make("text", { x: w - 8, y: h - 1, "text-anchor": "end" }, x));
    for (const line of series) {
      const path = line.xs.map((v, i) => `${i ? "L" : "M"}${atX(v).toFixed(1)} ${atY(line.ys[i]).toFixed(1)}`);
      svg.append(make("path", { d: path.join(""), style: `stroke: ${line.color}`, "stroke-dasharray": line.dashes }));
      if (line.xs.length <= 20 && !line.dashes) {
        line.xs.forEach((v, i) => svg.append(make("circle", { cx: atX(v), cy: atY(line.ys[i]), r: 3, style: `fill: ${line.color}` })));
      }
    }
    const cursor = make("line", { class: "cursor", y1: 8, y2: h - bottom, visibility: "hidden" });
    const output = make("output");
    svg.append(cursor);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const at = start + (((event.clientX - box.left) / box.width) * w - left) / (w - left - 8) * (end - start);
      const nearest = (line) => line.xs.reduce((a, v, i) => (Math.abs(v - at) < Math.abs(line.xs[a] - at) ? i : a), 0);
      const measured = series.filter((line) => !line.dashes);
      const v = measured[0].xs[nearest(measured[0])];
      cursor.setAttribute("x1", atX(v));
      cursor.setAttribute("x2", atX(v));
      cursor.setAttribute("visibility", "visible");
      const values = measured.slice(0, 4).map((line) => format(line.ys[nearest(line)]));
      output.textContent = `${x} ${brief(v)}: ${values.join(", ")}`;
    });
    const legend = series.length > 1
      ? make("ul", { class: "legend" }, series.map((line) => make("li", {}, swatch(line.color), line.name)))
      : null;
    return make("figure", { class: "chart" }, make("figcaption", {}, title, output), svg, legend);
  }

  const heading = (text) => make("h2", {}, text);
  const note = (text) => make("p", { class: "note" }, text);
  const [score, scoreTitle] = Object.entries(data.figures)[0];

  // ---------------------------------------------------------------- Summary

  function facts(run) {
    const { report, config } = run;
    const of = (total) => (total ? ` of ${count(total)}` : "");
    const best = run.best && run.best[0] !== report.step
      ? `; best: step ${count(run.best[0])} with ${percent(run.best[1])}` : "";
    const optimizer = [config["optim.name"], `rate ${config["optim.learning_rate"]}`, config["optim.schedule.name"]];
    return Object.entries({
      "Data set": `${report.dataset}, ${report.split}`,
      Images: `${count(report.num_images)}${report.image_sizes ? ` of ${report.image_sizes} pixels` : ""}`,
      Procedure: report.procedure,
      Protocol: report.protocol && `${report.protocol}, ${report.num_classes_averaged} of ${Math.max(report.num_classes_averaged, names.length)} classes averaged`,
      Step: `${count(report.step)}${of(config.total_steps)}${best}`,
      Network: [config["model.backbone.name"], config["model.head.name"]].filter(defined).join(" + "),
      Parameters: report.num_parameters && count(report.num_parameters),
      "Batch size": config.batch_size && count(config.batch_size),
      Optimiser: optimizer[0] && optimizer.join(", "),
      "Starts from": config["init_from.path"] && String(config["init_from.path"]).split("/").pop(),
      "Time of training": run.wall_seconds && duration(run.wall_seconds),
      "Speed of evaluation": `${brief(report.images_per_second)} images per second`,
    }).filter(([, value]) => value);
  }

  const figures = [
    ...Object.entries(data.figures),
    ...(isSegmentation ? [["mean_accuracy", "mean accuracy"]] : []),
  ];
  const ece = (run) => run.report.calibration?.ece;

  function summary() {
    const panel = $("summary");
    const references = Object.entries(runs[0].report.references ?? {});
    if (single) {
      const cells = [...figures.map(([key, title]) => [title, runs[0].report[key]]),
        ["calibration error", ece(runs[0])], ...references];
      panel.append(
        make("div", { class: "figures" }, cells.filter(([, value]) => defined(value)).map(([title, value]) =>
          make("div", {}, make("strong", {}, percent(value)), make("span", {}, title)))),
        make("dl", {}, facts(runs[0]).map(([title, value]) => [make("dt", {}, title), make("dd", {}, value)])));
    } else {
      const cells = figures.map(([key, title]) => ({ title, values: runs.map((run) => run.report[key]), high: key !== "error_rate" }));
      cells.push({ title: "calibration error", values: runs.map(ece), high: false });
      for (const [title, value] of references) cells.push({ title, values: runs.map(() => value) });
      const extreme = (row) => (row.high ? Math.max : Math.min)(...row.values.filter(defined));
      const columns = runs.map((run, i) => ({
        title: run.name, number: true, value: (row) => row.values[i],
        show: (row) => [percent(row.values[i]),
          i && defined(row.high) ? make("small", { class: "note" }, ` ${signed(difference(row.values[i], row.values[0]))}`) : null],
        best: (row) => defined(row.high) && row.values[i] === extreme(row),
      }));
      panel.append(table([{ title: "Figure", value: (row) => row.title }, ...columns], cells),
        note("Differences are from the first run. The best of each row is bold."));
      const described = runs.map((run) => Object.fromEntries(facts(run)));
      panel.append(heading("Runs"), table(
        [{ title: "About", value: (key) => key },
          ...runs.map((run, i) => ({ title: run.name, value: (key) => described[i][key] ?? "–" }))],
        [...new Set(described.flatMap(Object.keys))]));
    }
    const line = (curve, name, i) => ({ name, color: color(i), xs: curve[0], ys: curve[1] });
    const terms = Object.entries(runs[0].losses);
    const losses = single
      ? terms.map(([name, curve], i) => line(curve, name, i))
      : runs.filter((run) => run.losses.total).map((run, i) => line(run.losses.total, run.name, i));
    const scores = runs.map((run, i) => line(run.score, run.name, i));
    const end = Math.max(...scores.flatMap((x) => x.xs), 1);
    if (scores.some((x) => x.xs.length)) {
      references.forEach(([name, value], i) => scores.push({
        name, color: color(i + 5), dashes: "5 4", xs: [0, end], ys: [value, value] }));
    }
    const charts = [
      chart("Training loss", losses),
      chart(`${scoreTitle}, %`, scores, { format: (x) => brief(100 * x) }),
      chart("Learning rate", runs.map((run, i) => line(run.learning_rate, run.name, i)), { format: (x) => (x && x < 0.001 ? x.toExponential(0) : brief(x)) }),
    ].filter(defined);
    if (charts.length) panel.append(heading("Curves of the training"), make("div", { class: "charts" }, charts));
  }

  // ---------------------------------------------------------------- Classes

  const rowSums = runs.map((run) => run.report.confusion_matrix.map(sum));
  const columnSums = runs.map((run) => names.map((_, j) => sum(run.report.confusion_matrix.map((row) => row[j]))));
  const classScores = (run) => run.report[data.class_figure];

  function mistakenFor(run, i) {
    const row = run.report.confusion_matrix[i];
    let most = -1;
    row.forEach((n, j) => { if (j !== i && n > (most < 0 ? 0 : row[most])) most = j; });
    return most < 0 ? null : [most, row[most] / sum(row)];
  }

  function classes() {
    const bar = (value) => make("div", { class: "bar" },
      make("i", { "--share": `${100 * (value ?? 0)}%` }), make("span", {}, percent(value)));
    const main = isSegmentation ? "IoU" : "Accuracy";
    const columns = [{ title: "Class", value: (i) => names[i], show: className }];
    if (single) {
      const [run] = runs;
      const { confusion_matrix: matrix, accuracy } = run.report;
      const precision = (i) => (columnSums[0][i] ? matrix[i][i] / columnSums[0][i] : null);
      columns.push({ title: main, number: true, value: (i) => classScores(run)[i], show: (i) => bar(classScores(run)[i]) });
      if (isSegmentation) columns.push({ title: "Recall", number: true, value: (i) => accuracy[i], show: (i) => percent(accuracy[i]) });
      columns.push({ title: "Precision", number: true, value: precision, show: (i) => percent(precision(i)) });
    } else {
      runs.forEach((run, k) => columns.push({
        title: `${main}, ${run.name}`, number: true, value: (i) => classScores(run)[i],
        show: (i) => percent(classScores(run)[i]),
        best: (i) => classScores(run)[i] === Math.max(...runs.map((other) => classScores(other)[i] ?? -1)),
      }, ...(k ? [{
        title: "Difference", number: true,
        value: (i) => difference(classScores(run)[i], classScores(runs[0])[i]),
        show: (i) => signed(difference(classScores(run)[i], classScores(runs[0])[i])),
      }] : [])));
    }
    columns.push(
      { title: `Labelled ${unit}`, number: true, value: (i) => rowSums[0][i], show: (i) => count(rowSums[0][i]) });
    if (single) {
      columns.push(
        { title: `Predicted ${unit}`, number: true, value: (i) => columnSums[0][i], show: (i) => count(columnSums[0][i]) },
        { title: "Most often taken for", value: (i) => mistakenFor(runs[0], i)?.[1],
          show: (i) => { const found = mistakenFor(runs[0], i); return found ? `${names[found[0]]} (${percent(found[1])})` : ""; } });
    }
    $("classes").append(table(columns, names.map((_, i) => i), { limit: Infinity }));
  }

  // -------------------------------------------------------------- Confusion

  function confusion() {
    const panel = $("confusion");
    let k = 0;
    let byColumn = false;
    const pairs = make("div");
    const output = make("output", { id: "cell" });
    const size = names.length <= 12 ? 44 : names.length <= 24 ? 34 : names.length <= 40 ? 24 : Math.max(6, Math.floor(960 / names.length));
    const labels = size >= 16;
    const grid = make("div", { class: labels ? "matrix" : "matrix fine" });
    const select = (label, options, act) => make("label", {}, label,
      make("select", { onchange: (event) => { act(Number(event.target.value)); draw(); } },
        options.map((text, i) => make("option", { value: i }, text))));
    function draw() {
      const matrix = runs[k].report.confusion_matrix;
      const share = (i, j) => { const total = (byColumn ? columnSums[k][j] : rowSums[k][i]); return total ? matrix[i][j] / total : 0; };
      grid.style.setProperty("--cell", `${size}px`);
      grid.style.gridTemplateColumns = `${labels ? "auto" : ""} repeat(${names.length}, ${size}px)`;
      const cells = labels ? [make("span"), ...names.map((name) => make("span", { class: "column", title: name }, name))] : [];
      matrix.forEach((row, i) => {
        if (labels) cells.push(make("span", { class: "row", title: names[i] }, names[i]));
        row.forEach((n, j) => {
          const value = share(i, j);
          cells.push(make("div", {
            "data-cell": `${i},${j}`, "--share": `${(100 * Math.sqrt(value)).toFixed(1)}%`,
            "--tone": `var(--${i === j ? "accent" : "wrong"})`, class: value > 0.4 ? "strong" : "",
          }, size >= 34 && value >= 0.005 ? String(Math.round(100 * value)) : ""));
        });
      });
      grid.replaceChildren(...cells);
      const found = [];
      matrix.forEach((row, i) => row.forEach((n, j) => { if (i !== j && n) found.push([i, j, n]); }));
      found.sort((a, b) => b[2] - a[2]);
      pairs.replaceChildren(table([
        { title: "Label", value: ([i]) => names[i], show: ([i]) => className(i) },
        { title: "Predicted", value: ([, j]) => names[j], show: ([, j]) => className(j) },
        { title: `Share of the label, %`, number: true, value: ([i, , n]) => n / rowSums[k][i], show: ([i, , n]) => percent(n / rowSums[k][i]) },
        { title: unit[0].toUpperCase() + unit.slice(1), number: true, value: ([, , n]) => n, show: ([, , n]) => count(n) },
      ], found, { sortBy: 3, limit: 15 }));
    }
    grid.addEventListener("pointerover", (event) => {
      const at = event.target.closest("[data-cell]")?.dataset.cell.split(",").map(Number);
      if (!at) return;
      const [i, j] = at;
      const n = runs[k].report.confusion_matrix[i][j];
      output.replaceChildren(...className(i), " predicted as ", ...className(j),
        `: ${count(n)} ${unit}, ${percent(n / rowSums[k][i] || 0)} % of the label, ${percent(n / columnSums[k][j] || 0)} % of the prediction`);
    });
    draw();
    panel.append(
      make("div", { class: "controls" },
        single ? null : select("Run", runs.map((run) => run.name), (i) => { k = i; }),
        select("Shares of", ["each label (rows)", "each prediction (columns)"], (i) => { byColumn = Boolean(i); })),
      note("Rows are labels, columns predictions, in per cent. Point at a cell for its figures."),
      make("div", { class: "scroll" }, grid), output, heading("Most frequent mistakes"), pairs);
  }

  // ----------------------------------------------------------------- Images

  function picture(shown) {
    const images = runs[0].report.images;
    const scores = Object.entries(data.image_figures)
      .map(([key, title]) => `${title} ${percent(images[key][shown.index])}`).join(", ");
    const chips = (shares) => Object.entries(shares).sort((a, b) => b[1] - a[1]).map(([i]) => Number(i));
    const isMap = Boolean(shown.label_map);
    const small = Math.max(...shown.size) < 300 ? " small" : "";
    const viewer = make("div", { class: `viewer${small}${isMap ? "" : " plain"}` },
      make("img", { src: shown.image, alt: shown.name, width: shown.size[0], height: shown.size[1] }));
    if (isMap) {
      viewer.append(
        make("img", { class: "map label", src: shown.label_map, alt: "" }),
        make("img", { class: "map prediction", src: shown.prediction_map, alt: "" }),
        make("span", { class: "left" }), make("span", { class: "right" }),
        make("input", {
          type: "range", min: 0, max: 100, step: "any", value: 50, "aria-label": `Divide ${shown.name}`,
          oninput: (event) => viewer.style.setProperty("--split", `${event.target.value}%`),
        }));
    }
    const classList = [...new Set([...chips(shown.label), ...chips(shown.prediction)])];
    const legend = isMap
      ? make("ul", { class: "legend" }, classList.slice(0, 12).map((i) => make("li", {}, className(i))))
      : make("div", {}, `label: ${names[chips(shown.label)[0]] ?? "none"}, prediction: ${names[chips(shown.prediction)[0]]}`);
    return make("figure", { class: "card" }, viewer,
      make("figcaption", {}, make("strong", {}, shown.name), make("div", {}, scores), legend));
  }

  function gallery(panel) {
    const titles = { image: "photograph", label: "truth", prediction: "prediction" };
    const sides = ["label-prediction", "image-prediction", "image-label"];
    const galleries = ["worst", "best"].map((group) => make("div", { class: "gallery", id: group, "--opacity": 0.7 },
      data.pictures.filter((shown) => shown.group === group).map(picture)));
    const choose = (chosen) => galleries.forEach((element) => {
      element.dataset.sides = chosen;
      const [left, right] = chosen.split("-").map((side) => titles[side]);
      element.querySelectorAll(".left").forEach((span) => { span.textContent = left; });
      element.querySelectorAll(".right").forEach((span) => { span.textContent = right; });
    });
    if (isSegmentation) {
      panel.append(make("div", { class: "controls" },
        make("label", {}, "Compare", make("select", { id: "sides", onchange: (event) => choose(event.target.value) },
          sides.map((value) => make("option", { value }, value.split("-").map((side) => titles[side]).join(" with "))))),
        make("label", {}, "Opacity of the classes", make("input", {
          type: "range", id: "opacity", min: 0, max: 1, step: 0.05, value: 0.7,
          oninput: (event) => galleries.forEach((x) => x.style.setProperty("--opacity", event.target.value)) }))));
      choose(sides[0]);
    }
    galleries.forEach((element) => {
      if (element.children.length) panel.append(heading(element.id === "worst" ? "Worst" : "Best"), element);
    });
  }

  function images() {
    const panel = $("images");
    if (data.pictures.length) gallery(panel);
    const found = runs.map((run) => run.report.images);
    if (!found.every(defined)) return panel.childElementCount > 0;
    const rank = Object.keys(data.image_figures)[0];
    const columns = [{ title: "Image", value: (row) => row.name }];
    // By name: another run may have seen the images in another order, or others.
    const at = found.map((x) => new Map(x.name.map((name, i) => [name, i])));
    const value = (k, key) => (row) => found[k][key][at[k].get(row.name)];
    const add = (title, get, show) => columns.push({ title, number: true, value: get, show: (row) => show(get(row)) });
    if (single) {
      for (const [key, title] of Object.entries(data.image_figures)) add(title, value(0, key), percent);
    } else {
      runs.forEach((run, k) => {
        add(`${data.image_figures[rank]}, ${run.name}`, value(k, rank), percent);
        if (k) add("Difference", (row) => difference(value(k, rank)(row), value(0, rank)(row)), signed);
      });
    }
    panel.append(heading("Every image"));
    if (isSegmentation) panel.append(note("The mIoU of an image is over the classes that its label has."));
    panel.append(table(columns, found[0].name.map((name) => ({ name })), { sortBy: 1, descending: false, limit: 50 }));
    return true;
  }

  // ------------------------------------------------------------ Calibration

  function calibration() {
    const described = runs.filter((run) => run.report.calibration);
    if (!described.length) return false;
    const panel = $("calibration");
    for (const run of described) {
      const { predictions, confidence, accuracy, ece: error } = run.report.calibration;
      const total = sum(predictions);
      const mean = (values) => sum(values.map((x, i) => (x ?? 0) * predictions[i])) / total;
      const gap = mean(confidence) - mean(accuracy);
      const judged = Math.abs(gap) < 0.005 ? "as confident as it is right" : gap > 0 ? "overconfident" : "underconfident";
      panel.append(make("p", {}, single ? "" : make("strong", {}, `${run.name}: `),
        `Mean confidence ${percent(mean(confidence))} %, right ${percent(mean(accuracy))} %: ${judged}. `,
        `Expected calibration error ${percent(error)} %.`));
    }
    const lines = (ys) => described.map((run) => {
      const i = runs.indexOf(run);
      const { predictions } = run.report.calibration;
      // A handful of pixels in a bin tells nothing.
      const bins = predictions.map((_, b) => b).filter((b) => predictions[b] > 1e-5 * sum(predictions));
      return { name: run.name, color: color(i), xs: bins.map((b) => run.report.calibration.confidence[b]), ys: bins.map((b) => ys(run.report.calibration, b)) };
    });
    const perfect = { name: "as confident as right", color: "var(--muted)", dashes: "5 4", xs: [0, 1], ys: [0, 1] };
    const asPercent = { x: "confidence", format: (x) => brief(100 * x) };
    panel.append(make("div", { class: "charts" },
      chart(`Right by confidence, % of ${unit}`, [perfect, ...lines((c, b) => c.accuracy[b])], { ...asPercent, high: 1 }),
      chart(`Share of ${unit} by confidence, %`, lines((c, b) => c.predictions[b] / sum(c.predictions)), asPercent)),
      note(`Confidence is the probability of the predicted class. ${unit[0].toUpperCase() + unit.slice(1)} without a label do not count.`));
    return true;
  }

  // ----------------------------------------------------------------- Config

  function config() {
    const keys = [...new Set(runs.flatMap((run) => Object.keys(run.config)))].sort();
    const text = (run, key) => (key in run.config ? JSON.stringify(run.config[key]) : "–");
    const columns = [{ title: "Option", value: (key) => key },
      ...runs.map((run) => ({ title: single ? "Value" : run.name, class: "value", value: (key) => text(run, key) }))];
    const differing = keys.filter((key) => new Set(runs.map((run) => text(run, key))).size > 1);
    if (!single) {
      $("config").append(heading("What differs"), differing.length ? table(columns, differing) : note("Nothing: the configs are equal."), heading("Everything"));
    }
    $("config").append(table(columns, keys, { limit: Infinity }));
  }

  // ------------------------------------------------------------------- Tabs

  const tabs = [...document.querySelectorAll("[role=tab]")];
  function open(id) {
    for (const tab of tabs) {
      const chosen = tab.getAttribute("aria-controls") === id;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
      $(tab.getAttribute("aria-controls")).hidden = !chosen;
    }
  }
  tabs.forEach((tab) => {
    tab.addEventListener("click", () => { open(tab.getAttribute("aria-controls")); history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`); });
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      const usable = tabs.filter((x) => !x.hidden);
      const next = usable[(usable.indexOf(tab) + step + usable.length) % usable.length];
      next.focus();
      next.click();
    });
  });

  const { report } = runs[0];
  $("subtitle").textContent = single
    ? `${scoreTitle} ${percent(report[score])} on ${count(report.num_images)} images of ${report.dataset} ${report.split}, step ${count(report.step)}`
    : `${runs.length} runs on ${report.dataset} ${report.split}`;
  summary();
  classes();
  confusion();
  $("tab-images").hidden = !images();
  $("tab-calibration").hidden = !calibration();
  config();
  const asked = tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash && !tab.hidden);
  open((asked ?? tabs[0]).getAttribute("aria-controls"));
})();
