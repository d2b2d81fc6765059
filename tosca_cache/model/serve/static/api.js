// Requests to the server. Whatever is no success is thrown as a Problem that says what is wrong and what to do.

const ATTEMPTS = 20; // at a request that the server is too busy for
const AT_ONCE = 4; // photos that are asked about at the same time

export class Problem extends Error {
  constructor(status, body) {
    super(body.error || `the server answers ${status}`);
    this.status = status;
    this.remedy = body.do || "";
  }
  get text() {
    return this.remedy ? `${this.message} (${this.remedy})` : this.message;
  }
}

let token = sessionStorage.getItem("token") || "";

export function setToken(value) {
  token = value;
  sessionStorage.setItem("token", value);
}

const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

export async function ask(method, path, body, read = (answer) => answer.json()) {
  for (let attempt = 1; ; attempt++) {
    let answer;
    try {
      answer = await fetch(path, { method, body, headers: token ? { Authorization: `Bearer ${token}` } : {} });
    } catch {
      throw new Problem(0, { error: "the server does not answer", do: "is it still running?" });
    }
    if (answer.ok) return read(answer);
    if (answer.status === 503 && answer.headers.has("Retry-After") && attempt < ATTEMPTS) {
      await wait(Number(answer.headers.get("Retry-After")) || 1);
      continue;
    }
    throw new Problem(answer.status, await answer.json().catch(() => ({})));
  }
}

export function form(photos, fields = {}) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) data.append(name, value);
  for (const photo of photos) data.append("photos", photo, photo.name || "photo");
  return data;
}

// Calls a function for each of many things, a few at a time, in order.
export async function each(things, work) {
  const waiting = [...things];
  const worker = async () => {
    while (waiting.length) await work(waiting.shift());
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
