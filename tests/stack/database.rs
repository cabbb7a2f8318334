//! Databases first run a private server, which answers health checks, stops, and is followed by the real one.
//! Whoever waits for `service_healthy` must meet the real one.

use crate::common::World;

/// Each on an empty volume.
const ROUNDS: u32 = 10;

const COMPOSE: &str = r#"
services:
  db:
    image: postgres:17
    environment:
      POSTGRES_PASSWORD: pw
    volumes:
      - data:/var/lib/postgresql/data
    healthcheck:
      test: ["CMD", "pg_isready", "-U", "postgres"]
      interval: 10s
      retries: 10
  client:
    image: postgres:17
    entrypoint: ["psql", "postgresql://postgres:pw@db/postgres", "-v", "ON_ERROR_STOP=1", "-c"]
    command: ["CREATE TABLE met (id int)"]
    depends_on:
      db:
        condition: service_healthy
volumes:
  data:
"#;

#[test]
fn a_dependent_that_connects_at_once_meets_the_real_server() {
    World::with_base_images().run(|world| {
        let project = world.project("database", &[("compose.yaml", COMPOSE)]);
        for round in 0..ROUNDS {
            let ran = project.stack(&["up", "--exit-code-from", "client"]);
            assert!(ran.status.success(), "round {round}: {ran}");
            project.stack(&["down", "-v"]).ok();
        }
        world.assert_no_leak();
    });
}
