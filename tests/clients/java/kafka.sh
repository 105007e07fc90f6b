#!/bin/sh
# Apache Kafka from Maven for the tests.
#   kafka.sh install DIR           resolve it, and compile the programs beside this script
#   kafka.sh run DIR CLASS ARGS    run one of its tools, or of these programs
#   kafka.sh start DIR PORT DATA   run a broker on 127.0.0.1:PORT, its controller on PORT+1, until it is ended
set -eu
here=$(cd "$(dirname "$0")" && pwd)
what=$1 dir=$2
shift 2
run() { exec java -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$dir/classes:$(cat "$dir/classpath")" "$@"; }
case $what in
install)
    mkdir -p "$dir/classes/META-INF/services"
    cp "$here/pom.xml" "$dir/pom.xml"
    (cd "$dir" && mvn -q -B dependency:build-classpath -Dmdep.outputFile="$dir/classpath")
    javac -d "$dir/classes" -cp "$(cat "$dir/classpath")" "$here"/*.java
    echo Counting > "$dir/classes/META-INF/services/org.apache.kafka.connect.source.SourceConnector"
    ;;
run) run "$@" ;;
start)
    port=$1 data=$2
    mkdir -p "$data"
    cat > "$data/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$data/log
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=8388608
auto.create.topics.enable=false
P
    (run kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c "$data/server.properties") >&2
    run kafka.Kafka "$data/server.properties"
    ;;
esac
