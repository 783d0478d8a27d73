/** Runs on `epoll` the tests of TLS and of the examples, which other files run on Deno's sockets. */
import "../kit/on_epoll.ts";
import "../client/connect_tls_test.ts";
import "../examples/example_byte_proxy_test.ts";
import "../examples/example_memcached_test.ts";
import "../examples/example_redis_test.ts";
import "../examples/example_irc_test.ts";
import "../examples/example_pop3_test.ts";
import "../examples/example_smtp_test.ts";
import "../ops/proxy_haproxy_test.ts";
import "../ops/tls_client_ca_test.ts";
import "../ops/tls_cut_test.ts";
import "../ops/tls_handshake_test.ts";
import "../ops/tls_hook_test.ts";
import "../ops/tls_openssl_test.ts";
import "../ops/tls_reload_test.ts";
import "../ops/tls_resumption_test.ts";
import "../ops/tls_test.ts";
