// The backend under test in Node: GET /hang blocks its event loop for ever.
const fs = require('fs');
const http = require('http');

const fact = (kind) => {
  const seconds = Number(process.hrtime.bigint()) / 1e9;
  fs.appendFileSync('/run/incident/facts', `${kind} ${process.pid} ${seconds}\n`);
};

http.createServer((request, response) => {
  if (request.url === '/hang') {
    fact('onset');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  }
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify({ status: 'healthy', path: request.url }));
}).listen(Number(process.argv[2]), '0.0.0.0', () => fact('ready'));
