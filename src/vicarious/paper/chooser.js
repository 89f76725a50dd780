(function (d) {
  const raw = Uint8Array.from(atob(d.predicted), c => c.charCodeAt(0)), values = new Int8Array(raw.buffer);
  const root = document.getElementById("chooser"), count = d.clauses.length, pick = {};
  const add = (parent, tag, text) => { const n = document.createElement(tag); n.textContent = text || "";
    return parent.appendChild(n); };
  const select = (name, entries) => { const label = add(root, "label", name + " "), box = add(label, "select");
    let group = box, last = "";
    entries.forEach(([text, within], i) => {
      if (within && within !== last) { group = add(box, "optgroup"); group.label = last = within; }
      add(group, "option", text).value = i; });
    box.onchange = show; pick[name] = box; };
  const say = (clause, who) => { const s = clause.replace("{S}", who[0]).replace("{O}", who[1]).replace("{P}", who[2]);
    return s[0].toUpperCase() + s.slice(1) + "."; };
  const at = who => values[((+pick.layer.value * d.companies.length + +pick["company p"].value) * d.people.length + who)
    * count + +pick.event.value];
  const line = (who, name) => { const v = at(who), row = add(out, "div"); row.className = "said";
    add(row, "q", say(d.clauses[+pick.event.value], d.people[who]));
    const track = add(row, "div"); track.className = "track"; add(track, "i").className = "zero";
    const known = v !== d.missing, dot = add(track, "i"); dot.className = "dot " + name;
    dot.style.left = (known ? 50 + v / 2 : 50) + "%"; dot.hidden = !known;
    const n = d.agents[who][+pick.event.value];
    add(row, "output", known ? `${(v / 100).toFixed(2)} (n = ${n})` : "not predicted"); };
  const show = () => { out.replaceChildren(); line(+pick.subject.value + 1, "other"); line(0, "self"); };
  select("subject", d.people.slice(1).map(p => [p[0], p[3]]));
  select("event", d.clauses.map((c, i) => [say(c, ["somebody", "somebody", "somebody's"]), ""]));
  select("layer", Array.from({length: d.layers}, (_, i) => [String(i), ""]));
  select("company p", d.companies.map(p => [String(p), ""]));
  const out = add(root, "div"); pick.subject.value = 1; pick.layer.value = d.layer; show();
})
