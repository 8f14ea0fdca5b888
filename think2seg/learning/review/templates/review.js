"use strict";
(() => {
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const { review, file } = document.body.dataset;
  const cards = all(".card"), dots = all("#dots button"), buttons = all("[data-verdict]");
  const comment = one("#comment"), download = one("#download");
  const key = "think2seg-review-" + review, words = { accept: "accepted", reject: "rejected", unsure: "unsure" };
  let verdicts = {}, history = [], now = 0, link = "";

  function remembered() {
    try {
      const found = JSON.parse(localStorage.getItem(key) || "{}");
      const known = new Set(cards.map((card) => card.dataset.unit));
      return Object.fromEntries(Object.entries(found).filter(([unit]) => known.has(unit)));
    } catch {
      return {};
    }
  }

  function remember() {
    try {
      localStorage.setItem(key, JSON.stringify(verdicts));
    } catch {
      one("#count").textContent = "This browser keeps nothing: download before you close the page.";
    }
  }

  const unit = () => cards[now].dataset.unit;
  const said = (name) => verdicts[name] || { verdict: null, comment: "" };

  function show(wanted) {
    now = Math.max(0, Math.min(cards.length - 1, wanted));
    const { verdict, comment: text } = said(unit());
    cards.forEach((card, i) => (card.hidden = i !== now));
    dots.forEach((dot, i) => {
      dot.className = said(cards[i].dataset.unit).verdict || "";
      dot.classList.toggle("on", i === now);
      dot.setAttribute("aria-current", String(i === now));
    });
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict)));
    if (document.activeElement !== comment) comment.value = text;
    const done = cards.filter((card) => said(card.dataset.unit).verdict).length;
    one("#verdict").textContent = `${now + 1} of ${cards.length}: ${words[verdict] || "not judged"}`;
    one("#count").textContent = `${done} of ${cards.length} judged`;
    one("#progress").setAttribute("aria-valuenow", done);
    one("#progress i").style.width = (100 * done) / cards.length + "%";
    offer();
  }

  function offer() {
    const rows = cards.map((card) => ({ unit: card.dataset.unit, ...said(card.dataset.unit) }));
    const text = JSON.stringify({ review, verdicts: rows.filter((row) => row.verdict || row.comment) }, null, 1);
    URL.revokeObjectURL(link);
    link = URL.createObjectURL(new Blob([text + "\n"], { type: "application/json" }));
    download.href = link;
  }

  function change(values) {
    history.push([now, unit(), verdicts[unit()]]);
    verdicts[unit()] = { ...said(unit()), ...values };
    remember();
  }

  function judge(verdict) {
    change({ verdict });
    const open = cards.map((card, i) => i).filter((i) => !said(cards[i].dataset.unit).verdict);
    show(open.find((i) => i > now) ?? open[0] ?? now);
  }

  function undo() {
    const last = history.pop();
    if (!last) return;
    const [index, name, before] = last;
    if (before) verdicts[name] = before;
    else delete verdicts[name];
    remember();
    show(index);
  }

  function outline() {
    const plain = document.body.classList.toggle("plain");
    one("#outline").setAttribute("aria-pressed", String(!plain));
  }

  const keys = {
    a: () => judge("accept"), r: () => judge("reject"), u: () => judge("unsure"), z: undo, o: outline,
    arrowleft: () => show(now - 1), arrowright: () => show(now + 1), c: () => comment.focus(),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === comment) {
      if (event.key === "Enter" || event.key === "Escape") comment.blur();
      return;
    }
    const action = keys[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
  buttons.forEach((button) => button.addEventListener("click", () => judge(button.dataset.verdict)));
  dots.forEach((dot, i) => dot.addEventListener("click", () => show(i)));
  comment.addEventListener("change", () => { change({ comment: comment.value }); show(now); });
  one("#back").addEventListener("click", () => show(now - 1));
  one("#next").addEventListener("click", () => show(now + 1));
  one("#undo").addEventListener("click", undo);
  one("#outline").addEventListener("click", outline);
  verdicts = remembered();
  const first = cards.findIndex((card) => !said(card.dataset.unit).verdict);
  show(first < 0 ? 0 : first);
})();
