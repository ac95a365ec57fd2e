// Runs first in npm scripts, on whatever Node there is (so: old syntax), and says what to do when
// that Node, or what is installed, cannot run the rest.
"use strict";

var fs = require("fs");
var path = require("path");

var root = path.join(__dirname, "..");
var wanted = require("../package.json")
  .engines.node.replace(/[^0-9.]/g, "")
  .split(".")
  .map(Number);
var running = process.versions.node.split(".").map(Number);

function stop(lines) {
  process.stderr.write(lines.join("\n") + "\n");
  process.exit(1);
}

if (!fs.existsSync(path.join(root, "node_modules", "typescript"))) {
  stop([
    "The development dependencies are not installed.",
    "Run `npm ci` in " + root + " (without --omit=dev), then try again.",
  ]);
}

if (running[0] < wanted[0] || (running[0] === wanted[0] && running[1] < wanted[1])) {
  stop([
    "This needs Node " + wanted.join(".") + " or newer, and runs on " + process.version + ".",
    "`npm ci` brings a Node 24 of its own for the npm scripts, so use `npm start`, `npm test`, `npm run ...`.",
    "If that is what you did, npm was told not to run install scripts: `npm rebuild node --ignore-scripts=false` repairs it.",
  ]);
}
