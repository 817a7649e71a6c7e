"""The text side of the llama.cpp worker: pure, no I/O, no clock, no randomness.

How the engine uses it, in order:

    template = ChatTemplate(source, bos, eos, now=datetime.now)                  # once per model
    check_tools(tools)                                                           # BadSchema(param, message) -> 400
    prompt = template.render(messages, tools, tool_choice, parallel)             # TemplateError -> 400
    grammar = template.grammar(prompt, tools, tool_choice, parallel, response_format)    # Grammar | None, BadSchema
    parser = template.parser(prompt, tools, tool_choice, ids)                    # StreamParser | None
    machine = OutputMachine(parser, stops)
    machine.push(piece) … machine.finish("stop")                                 # Delta, finish reason

Facts about the engine's grammar sampler that its caller must mind:
  * It throws through C (which ends the process) when it is made to *accept* a token its grammar refuses, or an
    end-of-generation token too early. Before accepting a token that it did not itself leave finite (a resumed
    answer's tokens, a candidate list that was masked empty), apply the grammar to that one token and look at its logit.
  * A lazy one searches everything it was fed at every token. Feed it only while `machine.opening` is true, from the
    token that made it so, and reset it when that turns false without a call: its text then stays short. One that has
    triggered is fed on to the end.
  * `Grammar.trigger_tokens` are texts; pass those that tokenise (special tokens parsed) to exactly one token.
  * Tokens whose text is in `template.family.special_texts` or `template.reasoning_marks` must be rendered to text.
"""
