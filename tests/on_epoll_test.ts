/** What is tested on Deno's sockets, on the kernel's `epoll`. */
import "./on_epoll.ts";
import "./accept_test.ts";
import "./admission_test.ts";
import "./appetite_test.ts";
import "./gone_test.ts";
import "./example_chat_test.ts";
import "./example_kv_store_test.ts";
import "./proxy_haproxy_test.ts";
import "./proxy_protocol_test.ts";
import "./shutdown_test.ts";
import "./sockets_test.ts";
import "./stall_test.ts";
import "./telnet_test.ts";
import "./tls_client_ca_test.ts";
import "./tls_openssl_test.ts";
import "./tls_reload_test.ts";
import "./tls_test.ts";
