// The page: photos are asked about and taught. Names and texts of any origin are only ever set as textContent.

import { Problem, ask, each, form, setToken } from "./api.js";

const TOP = 5, NEAREST = 6, MOST_CARDS = 100, SHOWN_MS = 8000;
const find = (id) => document.getElementById(id);
const make = (tag, options = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), options);
  element.append(...children);
  return element;
};
const percent = (value) => (value < 0.0005 ? "< 0.1 %" : `${(100 * value).toFixed(1)} %`);
const count = (n, word) => `${n} ${word}${n === 1 ? "" : word.endsWith("s") ? "es" : "s"}`;

let model = null; // the answer of GET /classes
const cards = new Map(); // photo -> its element
const lesson = new Map(); // photo to be taught -> its element
let hiding; // the timer of the message

function say(text, bad = false) {
  const message = find("message");
  message.classList.toggle("bad", bad);
  message.textContent = text;
  clearTimeout(hiding);
  if (!bad) hiding = setTimeout(() => (message.textContent = ""), SHOWN_MS);
}

function fail(error) {
  if (!(error instanceof Problem)) throw error;
  if (error.status === 401) showSignIn();
  else say(error.text, true);
}

function showSignIn() {
  find("sign-in").hidden = false;
  find("main").hidden = true;
  find("facts").textContent = "";
  find("token").focus();
}

// ---- the model -------------------------------------------------------------------------------------------------------

async function showModel() {
  model = await ask("GET", "classes");
  find("sign-in").hidden = true;
  find("main").hidden = false;
  document.title = find("model").textContent = model.model;
  const accuracy = model.accuracy === null ? "" : `, ${model.accuracy.toFixed(1)} % right on ${count(model.held_out_images, "held-out photo")}`;
  find("facts").textContent = count(model.classes.length, "class") + accuracy;
  find("ask-hint").textContent = `up to ${size(model.limits.bytes)} and ${Math.round(model.limits.pixels / 1e6)} megapixels each`;
  find("teach").hidden = model.read_only;
  find("read-only").hidden = !model.read_only;
  find("undo").disabled = !model.can_undo;
  find("names").replaceChildren(...model.classes.map((one) => make("option", { value: one.name })));
  showClasses();
}

const size = (bytes) => (bytes < 1 << 20 ? `${Math.round(bytes / 1024)} KiB` : `${Math.round(bytes / (1 << 20))} MiB`);

function showClasses() {
  const wanted = find("find").value.trim().toLowerCase();
  const shown = model.classes.filter((one) => one.name.toLowerCase().includes(wanted));
  find("classes").replaceChildren(...shown.map((one) => {
    const forget = make("button", { type: "button", className: "plain", textContent: "×", title: `Forget ${one.name}` });
    forget.setAttribute("aria-label", `Forget ${one.name}`);
    forget.addEventListener("click", () => change(forget, async () => {
      const done = await ask("DELETE", `classes/${encodeURIComponent(one.name)}`);
      return `Forgotten: ${one.name}${done.exact ? "" : " (it is no longer answered; traces of it remain)"}. Undo takes this back.`;
    }));
    return make("tr", {}, make("td", { textContent: one.name }),
      make("td", { className: "number", textContent: one.images }),
      make("td", { className: "number", textContent: one.accuracy === null ? "–" : `${one.accuracy.toFixed(0)} %` }),
      make("td", { className: "forget" }, ...(model.read_only ? [] : [forget])));
  }));
}

// Something that changes the model: afterwards all photos are asked about again.
async function change(button, work) {
  button.disabled = true;
  try {
    const text = await work();
    await showModel();
    await askAll([...cards.keys()]);
    say(text);
  } catch (error) {
    fail(error);
  }
  button.disabled = false;
  if (model) {
    find("undo").disabled = !model.can_undo;
    find("teach-button").disabled = !lesson.size;
  }
}

// ---- asking ----------------------------------------------------------------------------------------------------------

function addPhotos(files) {
  for (const file of files) {
    const card = find("card").content.firstElementChild.cloneNode(true);
    preview(card.querySelector(".photo"), file);
    card.querySelector(".use").addEventListener("click", () => addLesson([file]));
    card.querySelector(".remove").addEventListener("click", () => remove(cards, file, "ask-files"));
    card.querySelector(".use").hidden = true;
    title(card, "…");
    find("results").append(card);
    cards.set(file, card);
  }
  for (const old of [...cards.keys()].slice(0, Math.max(0, cards.size - MOST_CARDS))) remove(cards, old);
  find("answers-bar").hidden = !cards.size;
  return askAll(files.filter((file) => cards.has(file)), true);
}

async function askAll(files, saying = false) {
  await each(files, async (file) => {
    const card = cards.get(file);
    if (!card) return;
    try {
      if (file.size > model.limits.bytes) {
        throw new Problem(413, { error: `the photo has ${size(file.size)}, more than ${size(model.limits.bytes)}` });
      }
      const { answers } = await ask("POST", `predict?top=${TOP}&nearest=${NEAREST}`, form([file]));
      showAnswer(card, file, answers[0]);
    } catch (error) {
      if (!(error instanceof Problem) || error.status === 401) return fail(error);
      showProblem(card, file, error.text);
    }
  });
  if (saying && files.length === 1 && cards.has(files[0])) say(`${files[0].name || "photo"}: ${cards.get(files[0]).querySelector("h3").textContent}`);
  if (saying && files.length > 1) say(`${count(files.length, "photo")} answered`);
}

const title = (card, text) => (card.querySelector("h3").textContent = text);

function note(card, text) {
  card.querySelector(".note").hidden = !text;
  card.querySelector(".note").textContent = text;
}

function showProblem(card, file, text) {
  card.classList.add("bad");
  title(card, "Cannot be read");
  note(card, `${file.name || "photo"}: ${text}`);
  card.querySelector(".use").hidden = true;
  card.querySelector(".bars").replaceChildren();
  card.querySelector(".near").hidden = true;
}

function showAnswer(card, file, answer) {
  if (answer.error !== null) return showProblem(card, file, answer.error);
  card.classList.remove("bad");
  title(card, answer.label);
  note(card, [file.name, ...(answer.is_novel ? ["It looks like none of the classes."] : [])].join(" · "));
  card.querySelector(".use").hidden = model.read_only;
  card.querySelector(".bars").replaceChildren(...answer.top.map(([name, probability]) => {
    const fill = make("div", { className: "fill" });
    fill.style.width = `${100 * probability}%`;
    const track = make("div", { className: "track" }, fill);
    track.setAttribute("aria-hidden", "true");
    return make("li", {}, make("span", { className: "name", textContent: name }),
      make("span", { className: "value", textContent: percent(probability) }), track);
  }));
  card.querySelector(".near").hidden = !answer.nearest.length;
  card.querySelector(".near ul").replaceChildren(...answer.nearest.map((one) => {
    const item = make("li", {}, make("span", { textContent: one.label }));
    if (one.photo) {
      const image = make("img", { alt: "" });
      item.prepend(image);
      ask("GET", one.photo, undefined, (found) => found.blob()).then((blob) => setImage(image, blob), () => image.remove());
    }
    return item;
  }));
}

function setImage(image, blob) {
  const address = URL.createObjectURL(blob);
  image.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
  image.addEventListener("error", () => {
    URL.revokeObjectURL(address);
    image.hidden = true;
  }, { once: true });
  image.src = address;
}

function preview(image, file) {
  image.alt = file.name || "photo";
  setImage(image, file);
}

function remove(map, file, focus) {
  map.get(file)?.remove();
  map.delete(file);
  find("answers-bar").hidden = !cards.size;
  find("teach-button").disabled = !lesson.size;
  if (focus) find(focus).focus();
}

// ---- teaching --------------------------------------------------------------------------------------------------------

function addLesson(files) {
  for (const file of files) {
    if (lesson.has(file)) continue;
    const image = make("img");
    preview(image, file);
    const drop = make("button", { type: "button", textContent: "×", title: `Leave ${file.name || "photo"} out` });
    drop.setAttribute("aria-label", drop.title);
    drop.addEventListener("click", () => remove(lesson, file, "teach-files"));
    const item = make("li", {}, image, drop);
    find("lesson").append(item);
    lesson.set(file, item);
  }
  find("teach-button").disabled = !lesson.size;
  say(`${count(lesson.size, "photo")} to teach`);
  if (!find("name").value) find("name").focus();
}

function teach() {
  const name = find("name").value.trim(), photos = [...lesson.keys()];
  const total = photos.reduce((sum, photo) => sum + photo.size, 0);
  if (!name || !photos.length) return;
  if (photos.length > model.limits.images || total > model.limits.bytes) {
    say(`at most ${count(model.limits.images, "photo")} and ${size(model.limits.bytes)} at a time: leave some out`, true);
    return;
  }
  change(find("teach-button"), async () => {
    const begun = performance.now();
    const done = await ask("POST", "learn", form(photos, { name }));
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    photos.forEach((photo) => remove(lesson, photo));
    find("name").value = "";
    const known = done.left_out ? `; ${count(done.left_out, "photo")} left out, learned before` : "";
    return `Learned ${done.name} from ${count(done.taught, "photo")} in ${seconds} s${known}.`;
  });
}

// ---- what the user does ----------------------------------------------------------------------------------------------

function takesFiles(area, input, take) {
  find(input).addEventListener("change", (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    take(files);
  });
  const over = (on) => (event) => {
    event.preventDefault();
    find(area).classList.toggle("over", on);
  };
  find(area).addEventListener("dragover", over(true));
  find(area).addEventListener("dragleave", over(false));
  find(area).addEventListener("drop", (event) => {
    over(false)(event);
    event.stopPropagation();
    take([...event.dataTransfer.files]);
  });
}

takesFiles("drop", "ask-files", addPhotos);
takesFiles("teach-drop", "teach-files", addLesson);
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
document.addEventListener("drop", (event) => model && addPhotos([...event.dataTransfer.files]));
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length && model) addPhotos(files);
});
find("clear").addEventListener("click", () => [...cards.keys()].forEach((file) => remove(cards, file, "ask-files")));
find("find").addEventListener("input", showClasses);
find("teach-form").addEventListener("submit", (event) => {
  event.preventDefault();
  teach();
});
find("undo").addEventListener("click", () => change(find("undo"), async () => {
  const done = await ask("POST", "undo");
  return `The last change is taken back: ${count(done.classes, "class")}.`;
}));
find("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(find("token").value);
  showModel().then(() => say("Signed in."), (error) => {
    fail(error);
    if (error.status === 401) say("This is not the token of the server.", true);
  });
});

showModel().catch(fail);
