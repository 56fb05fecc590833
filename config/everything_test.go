package config

// everything sets every setting to something other than its default.
const everything = `
grace = "5s"
state_dir = "/var/lib/outrigger"
consul {
  address = "https://consul.example:8501"
  scheme = "https"
  datacenter = "dc9"
  wait = "1m"
  stale = false
  max_stale = "2s"
  rate_burst = 7
  rate_interval = "250ms"
  backoff_min = "100ms"
  backoff_max = "1m30s"
  empty_confirm = "20s"
  empty_hold = "24h"
  shrink = 0.25
  shrink_confirm = "2m"
  probe_timeout = "500ms"
  cached = true
  max_connections = 50
  spread = "5s"
  token_file = "/run/secrets/consul"
  namespace = "team"
  partition = "west"
  snapshot_interval = "1m"
  snapshot_max_age = "24h"
  max_answer = "1MiB"
  tls {
    ca_file = "/etc/ca.pem"
    cert_file = "/etc/cert.pem"
    key_file = "/etc/key.pem"
    server_name = "consul"
    insecure_skip_verify = true
  }
}
admin { listen = "[::1]:9000" }
log {
  level = "debug"
  format = "json"
}
agents {
  interval = "1s"
  jitter = 0.25
  timeout = "900ms"
  max_backoff = "8m"
  expiry = "4s"
  tls {
    enabled = true
    ca_file = "testdata/tls/cert.pem"
    cert_file = "testdata/tls/cert.pem"
    key_file = "testdata/tls/key.pem"
    server_name = "agents.internal"
    insecure_skip_verify = true
  }
  gauges {
    enabled = true
    interval = "10ms"
  }
  published {
    enabled = true
    expiry = "1m"
    prefix = "team/reports"
    wait = "1m"
    pause = "2s"
    hold = "30s"
  }
}
service "web" {
  orca {
    enabled = false
    in_flight = "busy"
    expiry = "2s"
    memory = true
  }
  listen = "unix:/run/outrigger/web.sock"
  listen_mode = "0660"
  slow_start = "20s"
  panic_threshold = 0.25
  health_check "http" {
    interval = "3s"
    fast_interval = "500ms"
    timeout = "1s"
    rise = 3
    fall = 4
    spread = 0.2
    port = 9000
    method = "HEAD"
    path = "/ready?deep=1"
    host = "web.internal"
    headers = { X-Probe = "yes" }
    statuses = ["204", "300-399"]
    header_match = { X-State = "^ok" }
  }
  flap_damping {
    base = "1s"
    max = "30s"
    half_life = "1m"
  }
  failover {
    below = 2
    return = "10s"
  }
  discover {
    node_meta = { rack = "r1" }
    service = "web-v2"
    tags = ["blue", "say \"$${hi}\" \\ ü"]
    filter = "Service.Meta.x == \"%%{y}\"\n"
    datacenter = "dc2"
    only_passing = true
    near = "_agent"
    backup_tag = "spare"
    backup_weight = 1
  }
  locality {
    prefer = ["node", "zone"]
    node = "n1"
    zone = "a"
    datacenter = "dc1"
    zone_meta = "rack"
    spill = 1.5
  }
  policy "resource" {
    samples = 4
    memory_veto = 0.123456789
  }
  shadow "peak_ewma" {
    decay = "5s"
    unknown = "2s"
  }
  affinity {
    cookie = "OUTRIGGER"
    ttl = "1h"
    path = "/app"
    secure = true
    same_site = "strict"
  }
  capacity {
    max_in_flight = 10
    max_wait = 0.25
    queue {
      length = 20
      timeout = "1s"
    }
  }
  breaker {
    consecutive_failures = 5
    failure_ratio = 0.25
    min_requests = 30
    window = "20s"
    bucket = "2s"
    base_ejection = "3s"
    max_ejection = "40s"
    max_ejected_percent = 60
    failure_statuses = [500, 503]
    success_rate {
      min_hosts = 5
      volume = 50
      interval = "5s"
      factor = 2
      min_gap = 0.1
    }
    capacity {
      queue_failure_ratio = 0.75
      min_queued = 40
      window = "6s"
      base_open = "2s"
      max_open = "50s"
    }
  }
  retry {
    attempts = 3
    on = ["reset", 503, "504"]
    methods = ["GET", "POST"]
    per_try_timeout = "3s"
    backoff = "30ms"
    backoff_max = "300ms"
    retry_after_max = "2s"
    body_buffer = "512KiB"
    budget {
      ratio = 0.2
      min_per_second = 4
    }
  }
  timeouts {
    connect = "2s"
    first_byte = "3s"
    idle = "4s"
    request = "5s"
    head = "6s"
    tunnel = "7s"
    request_header = "X-Timeout-Ms"
  }
  limits {
    line = "1000B"
    head = "16KiB"
    headers = 64
    connections = 99
    requests = 1000
    body = "1GiB"
    min_rate = 100
  }
  pool {
    size = 1
    idle = "8s"
  }
  tls {
    enabled = true
    ca_file = "testdata/tls/cert.pem"
    server_name = "web.service.consul"
    cert_file = "testdata/tls/cert.pem"
    key_file = "testdata/tls/key.pem"
    min_version = "1.3"
    insecure_skip_verify = true
  }
  forward {
    x_forwarded = "replace"
    forwarded = "append"
    fields = ["for", "by"]
    trust = ["10.0.0.0/8", "unix"]
    via = false
    traceparent = "create"
    sampled = 0.5
    host = "web.internal:8080"
    headers {
      request {
        remove = ["X-Debug"]
        set = { X-Env = "prod", "X.Y" = "say \"$${hi}\" \\ ü" }
        add = { X-More = "a, b" }
      }
      response {
        remove = ["Server"]
        set = { X-Frame-Options = "DENY" }
        add = { X-Empty = "" }
      }
    }
  }
  access_log {
    path = "/var/log/web.log"
    format = "logfmt"
    sample = 0.01
    query = true
    buffer = "512KiB"
  }
}
service "api" { listen = ":8081" }
`
