//! How long a large project takes to load and to print: the cost per service should stay the same from 500 to 5,000.
//! `cargo bench -p stack-schema`.

mod large;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stack_schema::load::{LoadRequest, load, render};
use stack_schema::source::Files;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

struct Memory(HashMap<PathBuf, Vec<u8>>);

impl Memory {
    fn of(services: usize) -> Self {
        let files = large::files(services).into_iter();
        Self(files.map(|(name, text)| (Path::new("/p").join(name), text.into_bytes())).collect())
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn is_file(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
    fn is_dir(&self, _path: &Path) -> bool {
        false
    }
}

fn request() -> LoadRequest {
    let mut request = LoadRequest {
        files: vec!["/p/compose.yaml".into(), "/p/compose.override.yaml".into()],
        project_directory: "/p".into(),
        ..LoadRequest::default()
    };
    let given = stack_schema::env::Origin::Given("the bench".into());
    for (name, value) in [("REGISTRY", "registry.example"), ("TAG", "1"), ("DOMAIN", "shop.example")] {
        request.environment.set(name, value, given.clone());
    }
    request
}

fn config(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("config");
    group.sample_size(10);
    for services in [500, 1000, 2000, 5000] {
        let (files, request) = (Memory::of(services), request());
        group.throughput(Throughput::Elements(services as u64));
        group.bench_function(BenchmarkId::new("services", services), |bencher| {
            bencher.iter(|| {
                let loaded = load(&request, &files);
                assert!(loaded.project.is_some(), "{}", loaded.diagnostics[0].render());
                render::yaml(&loaded).len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, config);
criterion_main!(benches);
