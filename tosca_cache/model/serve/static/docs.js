// The OpenAPI of this server as a page: operations, their parameters, bodies and answers.

const make = (tag, text = "", ...children) => {
  const element = document.createElement(tag);
  element.textContent = text;
  element.append(...children);
  return element;
};

const api = await (await fetch("openapi.json")).json();
const resolved = (schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema || {});

// A schema in a few words: `list of string`, `number or null`, or the name of an object.
function kind(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.prefixItems) return `[${schema.prefixItems.map(kind).join(", ")}]`;
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  if (schema.format === "binary" || schema.contentMediaType) return "file";
  return schema.type || "anything";
}

function fields(schema) {
  const table = make("table"), body = make("tbody");
  for (const [name, one] of Object.entries(resolved(schema).properties || {})) {
    body.append(make("tr", "", make("th", name), make("td", kind(one)), make("td", one.description || "")));
  }
  table.append(body);
  return body.childElementCount ? table : make("p", kind(schema));
}

function example(method, path, body) {
  const address = `${location.origin}${new URL(".", location).pathname.replace(/\/$/, "")}${path}`;
  const parts = Object.entries(resolved(body).properties || {});
  const sent = parts.map(([name, one]) => ` -F ${name}=${kind(one).includes("file") ? "@PHOTO.jpg" : name.toUpperCase()}`);
  return `curl -X ${method.toUpperCase()}${sent.join("")} '${address}'`;
}

for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, one] of Object.entries(methods)) {
    const section = make("section", "", make("h2", `${method.toUpperCase()} ${path}`), make("p", one.description || one.summary));
    section.className = "panel";
    const body = Object.values(one.requestBody?.content || {})[0]?.schema;
    section.append(make("pre", example(method, path, body)));
    if (one.parameters?.length) {
      const rows = one.parameters.map((p) => make("tr", "", make("th", p.name), make("td", `${p.in}, ${kind(p.schema)}`),
        make("td", p.description || "")));
      section.append(make("h3", "Parameters"), make("table", "", make("tbody", "", ...rows)));
    }
    if (body) section.append(make("h3", "Form"), fields(body));
    const answer = one.responses["200"]?.content?.["application/json"]?.schema;
    if (answer) section.append(make("h3", `Answer: ${kind(answer)}`), fields(answer));
    const others = Object.entries(one.responses).filter(([status]) => status !== "200");
    section.append(make("h3", "Otherwise"), make("ul", "", ...others.map(([status, r]) => make("li", `${status}: ${r.description}`))));
    document.getElementById("operations").append(section);
  }
}

const used = ["AnswerOut", "Neighbour", "ClassOut", "Problem"].filter((name) => api.components.schemas[name]);
for (const name of used) {
  const section = make("section", "", make("h2", name), make("p", api.components.schemas[name].description || ""));
  section.append(fields(api.components.schemas[name]));
  section.className = "panel";
  document.getElementById("operations").append(section);
}
document.getElementById("facts").textContent = api.info.description;
