// Points of the scatter tell their context and attribute; a click opens the context.
document.addEventListener("trials-open", ({ detail: found }) => {
  const picture = document.querySelector('[data-figure="scatter"]');
  if (!picture) return;
  const edge = 110, tip = make("div", "tip"), rings = make("div");
  tip.hidden = true;
  picture.classList.add("pickable");
  picture.append(rings, tip);
  const panels = found.points.filter((points) => found.panels[points.name]);
  const clipped = (x) => (Math.abs(x) > edge ? Math.sign(x) * (edge - 3) : x);

  // Where a point is, in parts of the picture.
  function place(points, row, k) {
    const [left, top, width, height] = found.panels[points.name], x = points.x[row][k], y = points.y[row][k];
    if (x === null || y === null) return null;
    return [left + (width * (clipped(x) + edge)) / (2 * edge), top + (height * (edge - y)) / (2 * edge)];
  }

  function near(event) {
    const box = picture.getBoundingClientRect(), reach = 8 / box.width, tall = box.height / box.width;
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    let best = null, least = reach;
    for (const points of panels) {
      const [left, top, width, height] = found.panels[points.name];
      if (x < left - reach || x > left + width + reach || y < top - reach || y > top + height + reach) continue;
      points.contexts.forEach((context, row) => points.x[row].forEach((_, k) => {
        const spot = place(points, row, k);
        if (!spot) return;
        const distance = Math.hypot(spot[0] - x, (spot[1] - y) * tall);
        if (distance < least) [least, best] = [distance, { points, row, k, context, spot }];
      }));
    }
    return best;
  }

  function show(event) {
    const best = near(event);
    tip.hidden = !best;
    if (!best) return;
    const { points, row, k, context, spot } = best, about = found.contexts[context];
    tip.textContent = `${plain(about.name)}, ${about.attributes[k].name}: ${points.across} ${written(points.x[row][k])}, learned ${written(points.y[row][k])}`;
    tip.style.top = `calc(${100 * spot[1]}% + 10px)`;
    const right = spot[0] > 0.5;
    tip.style.left = right ? "auto" : `${100 * spot[0]}%`;
    tip.style.right = right ? `${100 - 100 * spot[0]}%` : "auto";
  }

  function ring(context) {
    const spots = panels.flatMap((points) => {
      const row = points.contexts.indexOf(context);
      return row < 0 ? [] : points.x[row].map((_, k) => place(points, row, k)).filter(Boolean);
    });
    rings.replaceChildren(...spots.map(([x, y]) => {
      const made = make("span", "ring");
      made.style.left = `${100 * x}%`;
      made.style.top = `${100 * y}%`;
      return made;
    }));
  }

  picture.addEventListener("pointermove", show);
  picture.addEventListener("pointerleave", () => { tip.hidden = true; });
  picture.addEventListener("click", (event) => {
    const best = near(event);
    if (!best) return;
    chooseContext(best.context);
    at("explorer").scrollIntoView();
  });
  document.addEventListener("context-chosen", ({ detail: context }) => ring(context));
  ring(context);
});
