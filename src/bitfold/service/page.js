"use strict";
const part = (id) => document.getElementById(id);
let token = "";

function headers(more) {
  return token ? { ...more, authorization: `Bearer ${token}` } : more;
}

function tell(text) {
  part("answer").hidden = true;
  part("problem").hidden = !text;
  part("problem").textContent = text || "";
}

async function asked(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server cannot be reached.");
  }
  const value = await response.json();
  if (response.ok) return value;
  if (response.status === 401) part("token-form").hidden = false;
  const error = value.error || {};
  const lines = [error.problem];
  for (const name of ["got", "expected", "fix"]) {
    if (error[name]) lines.push(`${name}: ${error[name]}`);
  }
  throw new Error(lines.join("\n"));
}

async function begin() {
  try {
    const found = await asked("/openapi.json", { headers: headers({}) });
    const columns = Object.keys(found.components.schemas.Row.properties);
    part("fields").replaceChildren();
    columns.forEach((name, place) => {
      const label = document.createElement("label");
      const input = document.createElement("input");
      label.textContent = name;
      label.htmlFor = input.id = `field-${place}`;
      input.name = name;
      input.autocomplete = "off";
      part("fields").append(label, input);
    });
    part("row").hidden = false;
    part("token-form").hidden = true;
    tell("");
  } catch (error) {
    tell(error.message);
  }
}

part("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = part("token").value;
  begin();
});

part("row").addEventListener("submit", async (event) => {
  event.preventDefault();
  const row = [...part("fields").querySelectorAll("input")]
    .map((input) => [input.name, input.value === "" ? null : input.value]);
  part("ask").disabled = true;
  try {
    const found = await asked("/score", {
      method: "POST",
      headers: headers({ "content-type": "application/json" }),
      body: JSON.stringify({ rows: [Object.fromEntries(row)] }),
    });
    tell("");
    part("score").textContent = found.scores[0].toFixed(6);
    part("run").textContent = found.run;
    part("answer").hidden = false;
  } catch (error) {
    tell(error.message);
  } finally {
    part("ask").disabled = false;
  }
});

begin();
