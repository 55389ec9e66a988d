"""Judge runs and states. The oracles import core alone, and also work without any fault."""
