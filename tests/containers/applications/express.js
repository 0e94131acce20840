// What a newcomer writes: Express answers, and ends with 0 when its requests are finished.
const server = require("express")().get("/", (_, response) => response.type("text/plain").send("served\n")).listen(3000, "0.0.0.0");
process.on("SIGTERM", () => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
});
