//! A made-up stack of any size: anchors, merge keys, env files, variables with defaults, and an override of every service.

use std::fmt::Write;

/// The files by name relative to one directory; `compose.yaml` and `compose.override.yaml` are the two to load.
pub(crate) fn files(services: usize) -> Vec<(String, String)> {
    let mut files = vec![
        ("compose.yaml".to_owned(), base(services)),
        ("compose.override.yaml".to_owned(), over(services)),
        (
            ".env".to_owned(),
            "REGISTRY=registry.example\nTAG=1.27\nLEVEL=info\nDOMAIN=shop.example\n".to_owned(),
        ),
        ("common.env".to_owned(), common()),
    ];
    files.extend((0..services).map(|number| (format!("env/s{number}.env"), own(number))));
    files
}

fn common() -> String {
    (0..20).map(|n| format!("COMMON_{n}=value of {n}\n")).collect::<String>()
        + "URL=https://${DOMAIN}/common\n"
}

fn own(number: usize) -> String {
    format!(
        "# What only this service has.\nSERVICE_NAME=s{number}\nSECRET_KEY='k{number}$'\nexport URL=\"https://${{DOMAIN}}/s{number}\"\n\
         DATABASE_URL=postgres://s{number}@db/s{number}?sslmode=disable # one database each\n"
    )
}

const HEAD: &str = r#"name: large
x-logging: &logging
  driver: json-file
  options: {max-size: 10m, max-file: "3"}
x-environment: &environment
  LOG_LEVEL: ${LEVEL:-debug}
  TZ: Europe/Berlin
  OTEL_EXPORTER_OTLP_ENDPOINT: http://collector.${DOMAIN:?set it}:4317
x-service: &service
  restart: unless-stopped
  logging: *logging
  stop_grace_period: 1m30s
  networks: [front, back]
  healthcheck:
    test: [CMD, curl, -f, http://localhost/health]
    interval: 10s
    timeout: 2s
    retries: 5
networks:
  front:
  back: {internal: true}
volumes:
  shared:
services:
"#;

fn base(services: usize) -> String {
    let mut text = HEAD.to_owned();
    for number in 0..services {
        let port = 10_000 + number % 20_000;
        let _ = write!(
            text,
            r#"  s{number}:
    <<: *service
    image: ${{REGISTRY}}/team/s{number}:${{TAG:-latest}}
    command: ["serve", "--port", "8080", "--name", "s{number}"]
    env_file: [common.env, env/s{number}.env]
    environment:
      <<: *environment
      REPLICA: "{number}"
      GREETING: hello ${{USER_NAME:-nobody}} of s{number}
    ports:
      - "127.0.0.1:{port}:8080"
    volumes:
      - shared:/shared
      - ./src/s{number}:/app:ro
    labels:
      com.example.team: t{team}
      com.example.service: s{number}
    deploy:
      resources: {{limits: {{cpus: "0.50", memory: 256M}}}}
"#,
            team = number % 10
        );
        if number > 0 {
            let _ = writeln!(text, "    depends_on:\n      s{}: {{condition: service_healthy}}", number / 2);
        }
    }
    text
}

fn over(services: usize) -> String {
    let mut text = String::from("services:\n");
    for number in 0..services {
        let _ = write!(
            text,
            r#"  s{number}:
    environment: [LOG_LEVEL=debug, "EXTRA=e{number}"]
    volumes: ["./override/s{number}:/app"]
    ports: !override ["{port}:8080"]
    build: {{context: ./src/s{number}, args: {{VERSION: "${{TAG}}"}}}}
"#,
            port = 30_000 + number % 20_000
        );
    }
    text
}
