import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;

/** The backend under test in Java: GET /hang takes all threads of its pool for ever. */
class Backend {
    static void fact(String kind) throws java.io.IOException {
        String line = kind + " " + ProcessHandle.current().pid() + " " + System.nanoTime() / 1e9 + "\n";
        Files.writeString(Path.of("/run/incident/facts"), line, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }

    public static void main(String[] args) throws Exception {
        var pool = Executors.newFixedThreadPool(8);
        var server = HttpServer.create(new InetSocketAddress(Integer.parseInt(args[0])), 0);
        server.setExecutor(pool);
        server.createContext("/", exchange -> {
            if (exchange.getRequestURI().getPath().equals("/hang")) {
                for (int i = 0; i < 8; i++) {
                    pool.submit(() -> { new CountDownLatch(1).await(); return null; });
                }
                fact("onset");
            }
            byte[] body = ("{\"status\": \"healthy\", \"path\": \"" + exchange.getRequestURI().getPath() + "\"}").getBytes();
            exchange.getResponseHeaders().set("Content-Type", "application/json");
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        fact("ready");
    }
}
