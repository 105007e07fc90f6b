//! An upload of any kind blocks no other administration call, and a digest is never a name.

use std::time::{Duration, Instant};
use weir_tests::{Node, block_on, module};

fn leb(mut n: u32, out: &mut Vec<u8>) {
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        out.push(if n == 0 { low } else { low | 0x80 });
        if n == 0 {
            return;
        }
    }
}

fn section(id: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(id);
    leb(body.len() as u32, out);
    out.extend_from_slice(body);
}

/// A core module that imports a function of this name from the contract's log.
fn imports(name: &str) -> Vec<u8> {
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    section(1, &[1, 0x60, 0, 0], &mut wasm);
    let mut body = vec![1];
    for text in ["weir:module/log@0.1.0", name] {
        leb(text.len() as u32, &mut body);
        body.extend_from_slice(text.as_bytes());
    }
    body.extend([0, 0]);
    section(2, &body, &mut wasm);
    wasm
}

#[test]
fn import_of_a_huge_name_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        let begun = Instant::now();
        let refused = client
            .push_module("long", "1", &imports(&"x".repeat(99_000)))
            .await
            .unwrap_err();
        assert!(refused.to_string().len() < 6_000, "{}", refused.to_string().len());
        client
            .push_module("threshold", "1", &module("threshold"))
            .await
            .unwrap();
        client.remove_module("threshold@1").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    });
}

#[test]
fn digests_cannot_be_module_names() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        let pushed = client
            .push_module("threshold", "1", &module("threshold"))
            .await
            .unwrap();
        let digest = pushed.digest.as_str();
        for name in [digest, &digest[..8], "deadbeef", "..", ".", "-rf", ""] {
            let refused = client
                .push_module(name, "1", &module("deadband"))
                .await
                .unwrap_err()
                .to_string();
            assert!(refused.contains("cannot name a module"), "{name}: {refused}");
        }
    });
}

/// A core module of this many functions, each with some work for a compiler.
fn functions(count: u32) -> Vec<u8> {
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    section(1, &[1, 0x60, 1, 0x7f, 1, 0x7f], &mut wasm);
    let (mut types, mut code) = (Vec::new(), Vec::new());
    leb(count, &mut types);
    types.extend(vec![0; count as usize]);
    section(3, &types, &mut wasm);
    leb(count, &mut code);
    for _ in 0..count {
        let mut body = vec![0];
        (0..50).for_each(|_| body.extend([0x20, 0, 0x20, 0, 0x6c, 0x21, 0]));
        body.extend([0x20, 0, 0x0b]);
        leb(body.len() as u32, &mut code);
        code.extend(body);
    }
    section(10, &code, &mut wasm);
    wasm
}

/// Returns the number of system call filters of a process, from its `/proc` status.
fn filters(status: &str) -> u32 {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp_filters:"));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or_default()
}

/// Returns the command lines of the children of `parent` that have more filters than their parent.
fn confined_children(parent: u32) -> Vec<String> {
    let of =
        |pid: &str, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let own = filters(&of(&parent.to_string(), "status"));
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let all = all.filter_map(|process| process.file_name().into_string().ok());
    all.filter(|pid| {
        let status = of(pid, "status");
        status.contains(&format!("PPid:\t{parent}\n")) && filters(&status) > own
    })
    .map(|pid| of(&pid, "cmdline").replace('\0', " "))
    .collect()
}

#[test]
fn compiler_process_is_confined() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    // The compiler must still work: make a component, compile it, and reject a bad module.
    let pushing = std::thread::scope(|scope| {
        let push = scope.spawn(|| {
            block_on(async {
                let client = node.client().await.unwrap();
                client
                    .push_module("threshold", "1", &module("threshold"))
                    .await
                    .unwrap();
                client.push_module("many", "1", &functions(30_000)).await
            })
        });
        let mut seen = std::collections::BTreeSet::new();
        while !push.is_finished() {
            seen.extend(confined_children(node.pid()));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(seen.iter().any(|what| !what.contains("--make")), "{seen:?}");
        assert!(seen.iter().any(|what| what.contains("--make")), "{seen:?}");
        push.join().unwrap()
    });
    let refused = pushing.unwrap_err().to_string();
    assert!(refused.contains("module"), "{refused}");
}

/// Builds a core module of 160 KB: a function of nine hundred nested loops, which costs a compiler 1.5 GB.
fn loops() -> Vec<u8> {
    const LOOPS: u32 = 900;
    const LOCALS: u32 = 2_000;
    let mut body = Vec::new();
    leb(1, &mut body);
    leb(LOCALS, &mut body);
    body.push(0x7f);
    for l in 0..LOOPS {
        body.extend([0x03, 0x40]);
        for n in 0..20 {
            let local = (l * 37 + n * 101) % LOCALS;
            body.push(0x20);
            leb(local, &mut body);
            body.extend([0x41, 1, 0x6a, 0x21]);
            leb((local + 1) % LOCALS, &mut body);
        }
    }
    for l in 0..LOOPS {
        body.push(0x20);
        leb(l, &mut body);
        body.extend([0x0d, 0, 0x0b]);
    }
    body.push(0x0b);
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    section(1, &[1, 0x60, 0, 0], &mut wasm);
    section(3, &[1, 0], &mut wasm);
    let mut code = vec![1];
    leb(body.len() as u32, &mut code);
    code.extend(body);
    section(10, &code, &mut wasm);
    wasm
}

#[test]
fn module_that_is_costly_to_compile_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    // Inside a valid module, so that no other check fails first.
    let mut costly = weir_runtime::componentize(&module("threshold"))
        .unwrap()
        .into_owned();
    section(1, &loops(), &mut costly);
    block_on(async {
        let client = node.client().await.unwrap();
        for round in 0..2 {
            let begun = Instant::now();
            let refused = client
                .push_module("costly", "1", &costly)
                .await
                .unwrap_err()
                .to_string();
            assert!(refused.contains("MiB of memory to compile"), "{refused}");
            // The second refusal comes from the cache.
            assert!(
                round == 0 || begun.elapsed() < Duration::from_secs(2),
                "{:?}",
                begun.elapsed()
            );
            let other = module("threshold");
            client.push_module("threshold", "1", &other).await.unwrap();
        }
    });
    let own = std::fs::read_dir(dir.path().join("data/cache"))
        .unwrap()
        .flatten();
    let left = own.filter(|file| file.path().extension().is_some_and(|ending| ending == "new"));
    assert_eq!(left.count(), 0);
}
