// `npm start`: builds (which checks the version of Node first), then becomes the program.
"use strict";

var childProcess = require("child_process");
var path = require("path");

var build = childProcess.spawnSync("npm run --silent build", { shell: true, stdio: "inherit" });
if (build.status !== 0) process.exit(1);

// When npm is told to end, it ends the shell between and forgets us; so the shell's end is our signal.
var shell = process.ppid;
setInterval(function watchShell() {
  if (process.ppid !== shell) process.kill(process.pid, "SIGTERM");
}, 250).unref();

var bin = path.join(__dirname, "..", "dist", "cli", "bin.js");
process.argv.splice(1, 1, bin, "serve", "--http");
void import(bin);
