// The Socket.IO server that `fanfare bench --protocol socketio` expects: it joins rooms on request,
// and publishes what is posted to /publish. Run it where `socket.io` is installed; PORT is its port.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer((request, response) => {
  let body = "";
  request.on("data", (part) => (body += part));
  request.on("end", () => {
    if (request.url !== "/publish") return;
    const { topic, data } = JSON.parse(body);
    io.to(topic).emit("message", data);
    response.end("{}");
  });
});
const io = new Server(http);
io.on("connection", (socket) => {
  socket.on("subscribe", (topic, done) => {
    socket.join(topic);
    done();
  });
});
http.listen(process.env.PORT ?? 3000, "127.0.0.1");
