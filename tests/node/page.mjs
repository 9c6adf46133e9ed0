// The status page in a real browser: node page.mjs <Chromium> <directory for screenshots> <JSON of addresses by name>
//
// Looks at each page in three widths, in light and dark, follows its links and uses its filter without JavaScript. Prints what is
// wrong, one line each, and ends with 1 where anything is.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [program, shots, pages] = [process.argv[2], process.argv[3], JSON.parse(process.argv[4])];
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const WIDTHS = { phone: 390, laptop: 1280, wall: 3840 };
const problems = [];
const wrong = (where, what) => problems.push(`${where}: ${what}`);

const browser = await chromium.launch({
  executablePath: program,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-proxy-server"],
});

// A page that tells of every request and of everything that its console says.
async function watched(where, origin, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("console", (message) => wrong(where, `console ${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => wrong(where, `script: ${error}`));
  page.on("dialog", (dialog) => { wrong(where, `dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("requestfailed", (request) => wrong(where, `request failed: ${request.url()}: ${request.failure()?.errorText}`));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "data:" && url.origin !== origin) wrong(where, `request to ${request.url()}`);
  });
  return page;
}

async function check(where, page) {
  const foreign = await page.locator('script, [onerror], [onclick], [style]:not([style=""]), link[rel=stylesheet], img, iframe').evaluateAll((all) => all.map((e) => e.outerHTML));
  if (foreign.length > 0) wrong(where, `should not be there: ${foreign.join(" ").slice(0, 300)}`);
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations", "incomplete"] }));
  if (found.passes.length < 10) wrong(where, `axe looked at ${found.passes.length} rules only`);
  // What axe could not decide counts as well, but for the signs beside words, which nobody needs to read.
  const sign = (node) => /only non-text characters/.test(node.failureSummary) && /^<span aria-hidden="true">/.test(node.html);
  const unclear = found.incomplete.filter((rule) => rule.id === "color-contrast").map((rule) => ({ ...rule, nodes: rule.nodes.filter((node) => !sign(node)) }));
  for (const rule of [...found.violations, ...unclear].filter((rule) => rule.nodes.length > 0)) {
    const nodes = rule.nodes.map((node) => `${node.target} ${node.failureSummary ?? ""} ${node.html}`.replace(/\s+/g, " ")).slice(0, 3);
    wrong(where, `axe ${rule.id}: ${rule.help}: ${nodes.join(" | ")}`);
  }
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) wrong(where, `${wide} px wider than the screen`);
}

async function look(name, address, colorScheme, [size, width]) {
  const where = `${name}, ${size}, ${colorScheme}`;
  const page = await watched(where, new URL(address).origin, { colorScheme, viewport: { width, height: Math.round(width * 0.6) + 500 } });
  const began = Date.now();
  const answer = await page.goto(address);
  if (answer.status() !== 200) wrong(where, `status ${answer.status()}`);
  if (answer.headers()["refresh"] !== "30") wrong(where, `refresh: ${answer.headers()["refresh"]}`);
  if (Date.now() - began > 10_000) wrong(where, `took ${Date.now() - began} ms`);
  await page.screenshot({ path: `${shots}/${name}-${size}-${colorScheme}.png`, fullPage: size === "laptop" });
  await check(where, page);
  await page.context().close();
}

// Without JavaScript: links, the filter and the parts of a long list.
async function use(name, address) {
  const where = `${name}, used`;
  const page = await watched(where, new URL(address).origin, { javaScriptEnabled: false });
  await page.goto(address);
  const text = () => page.locator("main").innerText();
  // A click that leads to another page, until that is there.
  const follow = (locator) => Promise.all([page.waitForEvent("load"), locator.click()]);
  const rows = () => page.locator("section[aria-labelledby=checks] tbody tr, main > .scroll tbody tr").count();

  const seen = new Set();
  const hrefs = await page.locator("a").evaluateAll((links) => links.map((link) => link.href));
  for (const href of hrefs.filter((href) => !/metrics|api|config/.test(new URL(href).pathname)).slice(0, 40)) {
    if (seen.has(href)) continue;
    seen.add(href);
    const answer = await page.goto(href);
    if (answer.status() !== 200) wrong(where, `${href}: ${answer.status()}`);
    const paused = new URL(href).searchParams.get("refresh") === "off";
    if (("refresh" in answer.headers()) === paused) wrong(where, `${href}: refresh: ${answer.headers()["refresh"]}`);
  }
  await page.goto(address);
  if (name === "demo") {
    if (!/^Not segmented: \d checks fail/.test(await text())) wrong(where, await text());
    return page.context().close();
  }
  if (name === "none") {
    if (!(await text()).includes("Nothing is tested")) wrong(where, await text());
    return page.context().close();
  }
  if (name === "one") {
    if ((await rows()) !== 1) wrong(where, `${await rows()} rows`);
    await follow(page.locator("section[aria-labelledby=checks] td a"));
    if (!(await text()).includes("Addresses 1")) wrong(where, await text());
    return page.context().close();
  }
  if (name === "hostile") {
    // As it is shown, and as it is kept: in escapes.
    for (const query of ["./?check=srv-wildcard", "./"]) {
      await page.goto(new URL(query, address).href);
      const html = await page.content();
      if (/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/.test(html)) wrong(where, "control characters");
    }
    await page.goto(new URL("./?check=srv-wildcard", address).href);
    const told = await text();
    if (!told.includes("<script>alert(1)</script>") || !told.includes("l".repeat(63))) wrong(where, told);
    await page.screenshot({ path: `${shots}/hostile-check.png` });
    return page.context().close();
  }
  if ((await rows()) !== 100) wrong(where, `${await rows()} rows`);
  await follow(page.getByRole("link", { name: "Next" }));
  if (!(await text()).includes("101 to 200 of")) wrong(where, `no second part: ${await text()}`);
  await page.goto(address);
  await page.getByLabel("Name contains").fill("t150:");
  await follow(page.getByRole("button", { name: "Filter" }));
  if (!(await text()).includes("t150:")) wrong(where, `filter by name: ${await text()}`);
  await page.goto(address);
  await page.getByLabel("Verdict").selectOption("fail");
  await follow(page.getByRole("button", { name: "Filter" }));
  const fails = await text();
  const badges = await page.locator("tbody td:first-child .badge").allInnerTexts();
  if (!/^[1-9]\d* checks/.test(fails) || badges.length === 0 || badges.some((badge) => !badge.includes("fail"))) {
    wrong(where, `filter by verdict: ${fails}`);
  }
  await follow(page.locator("td a").first());
  if (!(await text()).includes("reached: the connection was accepted")) wrong(where, `evidence: ${await text()}`);
  await page.screenshot({ path: `${shots}/${name}-check.png`, fullPage: true });
  await follow(page.getByRole("link", { name: "Overview" }));
  // A cell of the matrix leads to what is behind it.
  const cell = page.locator("table.matrix a").first();
  const [, bad, all] = (await cell.innerText()).match(/(\d+) of (\d+)/);
  await follow(cell);
  const behind = await page.locator("h1").innerText();
  if (!behind.startsWith(`${all} checks ${bad} fail`)) wrong(where, `cell of ${bad} of ${all}: ${behind}`);
  await page.context().close();
}

// The one that is left open loads itself again.
const first = pages.one;
const open = await watched("left open", new URL(first).origin);
let loads = 0;
open.on("load", () => loads++);
await open.goto(first);
const opened = Date.now();

for (const [name, address] of Object.entries(pages)) {
  await use(name, address).catch((error) => wrong(`${name}, used`, error));
  for (const colorScheme of ["light", "dark"]) {
    for (const width of Object.entries(WIDTHS)) await look(name, address, colorScheme, width);
  }
}
while (loads < 2 && Date.now() - opened < 60_000) await new Promise((resolve) => setTimeout(resolve, 250));
if (loads < 2) wrong("left open", `loaded ${loads} times`);

await browser.close();
problems.forEach((problem) => console.log(problem));
console.log(`${problems.length} problems`);
process.exit(problems.length > 0 ? 1 : 0);
