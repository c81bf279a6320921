"""The content of the chat part: what users say, what Abacus answers, and pools of words to fill in.

Templates hold `str.format` fields in lower case. A template that ends with a field ends with content that
is to be copied, so nothing may follow it.
"""

from __future__ import annotations

from dataclasses import dataclass

# Many short strings to a line are easier to look over than one to a line.
# fmt: off

REQUEST_OPENERS = (
    "Please ", "Hi, ", "Hello! ", "Hey Abacus, ", "Now ", "Okay, ", "Abacus, ", "Hello, please ",
)
QUESTION_OPENERS = (
    "Hi, ", "Hello! ", "Hey, ", "Hey Abacus, ", "So, ", "Okay, ", "One question: ", "Abacus, ",
)
REQUEST_CLOSERS = (", please", " Thanks!", " Thank you.", ", Abacus")
QUESTION_CLOSERS = (" Thanks!", " I am curious.", ", Abacus", " Just asking.", " I would like to know.")


@dataclass(frozen=True, slots=True)
class Phrasing:
    """How users put something: a template with, now and then, something before and after it.

    Attributes:
        templates: The wordings themselves.
        openers: What may come before one, with its trailing space.
        closers: What may follow one. Those that start with a comma go before the final punctuation mark.
    """

    templates: tuple[str, ...]
    openers: tuple[str, ...] = ()
    closers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Intent:
    """Something users say that has the same answer however they put it.

    Attributes:
        name: Name that evaluations group by.
        phrasing: How users put it.
        answers: What Abacus answers, one of these.
        thoughts: What Abacus thinks before, one of these.
    """

    name: str
    phrasing: Phrasing
    answers: tuple[str, ...]
    thoughts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Requests of one family, all declined alike.

    Attributes:
        phrasing: How users ask, with a field `topic`.
        topics: What users ask about.
        answer: What Abacus answers.
        thoughts: What Abacus thinks before, one of these.
    """

    phrasing: Phrasing
    topics: tuple[str, ...]
    answer: str
    thoughts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """Something users tell about themselves and ask for later.

    Attributes:
        pool: Which pool its values come from.
        statements: How users tell it, with a field `value`.
        questions: How users ask for it.
        answer: How Abacus recalls it, with a field `value`.
        unknown: What Abacus answers when it was not told.
        acknowledgement: What Abacus answers when told, with a field `value`.
    """

    pool: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str
    unknown: str
    acknowledgement: str = "Thank you, I will remember that."


@dataclass(frozen=True, slots=True)
class Record:
    """A sentence that states several values, to be extracted to JSON.

    Attributes:
        pools: Which pool the values come from, by field of the sentences.
        keys: Keys that users ask for, by field of the sentences.
        sentences: Sentences with those fields.
    """

    pools: dict[str, str]
    keys: dict[str, tuple[str, ...]]
    sentences: tuple[str, ...]


# --- Small talk ----------------------------------------------------------------------------------------

_GREETED = (
    "{greeting}", "{greeting}!", "{greeting}.", "{greeting}, Abacus!", "{greeting} Abacus",
    "{greeting} to you!", "{greeting}, my friend.", "{greeting}, assistant.",
    "{greeting}, how nice to see you.", "{greeting}, little model!", "{greeting}! Nice to meet you.",
    "{greeting}, I am back.", "{greeting}, it is me again.", "{greeting}, anyone there?",
    "{greeting}! Are you there?", "{greeting}, can you hear me?", "{greeting} from my terminal!",
    "{greeting} and welcome!", "{greeting}, shall we start?", "{greeting}, are you ready?",
    "{greeting}, bot.",
)


def _greetings(*greetings: str) -> Phrasing:
    return Phrasing(
        tuple(template.replace("{greeting}", greeting) for greeting in greetings for template in _GREETED)
    )


INTENTS = (
    Intent(
        "greeting",
        _greetings("Hello", "Hi", "Hey", "Hi there", "Hello there", "Hello again", "Greetings", "Hey there"),
        ("Hello! How can I help you?",),
        ("A greeting.", "The user says hello.", "I greet the user."),
    ),
    Intent(
        "greeting_morning",
        _greetings("Good morning", "Morning", "A good morning"),
        ("Good morning! How can I help you?",),
        ("A morning greeting.", "The user says good morning."),
    ),
    Intent(
        "greeting_evening",
        _greetings("Good evening", "Evening", "A good evening"),
        ("Good evening! How can I help you?",),
        ("An evening greeting.", "The user says good evening."),
    ),
    Intent(
        "farewell",
        Phrasing(
            (
                "Goodbye.", "Bye!", "Bye bye!", "See you later.", "See you tomorrow.", "Good night.",
                "Farewell.", "I have to go now.", "I am leaving now.", "I must leave.", "Talk to you later.",
                "Take care!", "That is all for today.", "Until next time.", "See you soon!",
                "I am off to bed.", "Catch you later!", "Have a nice day!",
                "Have a good evening and goodbye.", "So long!", "We are done here, bye.",
                "I will close the window now.", "Time to go home.", "Ciao!", "I am done, goodbye!",
                "Cheers, bye!",
            ),
            ("Okay, ", "Thanks, ", "Well, ", "All right, ", "Thank you! "),
            (", Abacus", " Bye!", " It was nice talking to you.", ", my friend"),
        ),
        ("Goodbye! Come back any time.",),
        ("A farewell.", "The user is leaving.", "The user says goodbye."),
    ),
    Intent(
        "thanks",
        Phrasing(
            (
                "Thanks!", "Thank you.", "Thank you very much!", "Thanks a lot.", "Many thanks!",
                "Thanks so much!", "I appreciate it.", "That was helpful.", "That helped me a lot.",
                "Thank you for your help.", "Thanks for the answer.", "Much appreciated!",
                "You were a great help.", "I am grateful.", "Thx", "Thank you so much!", "A thousand thanks!",
                "Thank you kindly.", "I owe you one.", "Ta!", "Thanks for your time.",
                "That is just what I needed.", "Perfect, thank you!", "Great, thanks!",
            ),
            ("Okay, ", "Oh, ", "Wonderful! ", "Ah, ", "Very good! "),
            (", Abacus", " Really.", " You saved me some time.", ", my friend"),
        ),
        ("You are welcome!",),
        ("The user thanks me.", "Thanks.", "The user is grateful."),
    ),
    Intent(
        "how_are_you",
        Phrasing(
            (
                "How are you?", "How are you doing?", "How are you today?", "How is it going?",
                "How do you do?", "How do you feel?", "How have you been?", "Are you well?", "Are you okay?",
                "Is everything all right?", "How is your day?", "How is life?", "What is up?",
                "How are things?", "How goes it?", "How are you feeling today?", "Are you doing well today?",
                "Did you have a good day?", "How's it going?", "What's up?", "How's your day so far?",
                "You all right?", "How are things with you?",
            ),
            ("Hi, ", "Hello! ", "Hey, ", "Hey Abacus, ", "Hello there, ", "Good to see you! ", "So, "),
            (", Abacus", " I am fine.", ", my friend", " I am doing well.", " Tell me."),
        ),
        ("I am fine, thank you. How can I help you?",),
        ("The user asks how I am.", "Small talk.", "A question about how I am."),
    ),
    Intent(
        "identity",
        Phrasing(
            (
                "Who are you?", "What are you?", "What is your name?", "What's your name?",
                "Do you have a name?", "What do people call you?", "How should I call you?",
                "Tell me your name.", "Introduce yourself.", "Tell me who you are.",
                "Can you introduce yourself?", "Which model are you?", "What model is this?",
                "Who am I talking to?", "Who is this?", "May I know your name?", "What should I call you?",
                "Tell me about yourself.", "Can you tell me your name?", "Could you say who you are?",
                "Name?", "What kind of model are you?", "Who do I have the pleasure of talking to?",
                "Your name?", "Are you Abacus?", "Is your name Abacus?", "Describe yourself.",
                "I forgot your name, what is it?",
            ),
            QUESTION_OPENERS[:-1],
            (*QUESTION_CLOSERS[:2], " I forgot."),
        ),
        ("I am Abacus, a small model that ships with langnorm.",),
        ("The user asks for my name.", "The user asks who I am.", "A question about me."),
    ),
    Intent(
        "capabilities",
        Phrasing(
            (
                "What can you do?", "What are you able to do?", "What are you good at?", "What do you do?",
                "What can I ask you?", "What are your skills?", "What are you for?", "What is your purpose?",
                "List your abilities.", "Tell me what you can do.", "What tasks can you handle?",
                "Can you do arithmetic?", "Can you do maths?", "Can you solve word problems?",
                "Can you call tools?", "Do you know how to calculate?",
                "What kinds of questions do you answer?", "Show me what you can do.",
                "What features do you have?", "How can you be useful?", "Describe your abilities.",
                "What were you trained for?", "What should I use you for?", "Can you use tools?",
                "Are you able to add numbers?", "What are you capable of?", "Explain what you can do.",
                "What can a small model like you do?",
            ),
            QUESTION_OPENERS,
            QUESTION_CLOSERS,
        ),
        ("I can do arithmetic, solve word problems, call tools and make a little small talk.",),
        ("The user asks what I can do.", "A question about my skills.", "I list my skills."),
    ),
    Intent(
        "maker",
        Phrasing(
            (
                "Who made you?", "Who created you?", "Who built you?", "Who trained you?",
                "Who is your maker?", "Who are your developers?", "Where do you come from?", "Who wrote you?",
                "Who programmed you?", "What company made you?", "Which team built you?",
                "Who is your creator?", "Who developed you?", "Tell me who made you.", "Who is behind you?",
                "Were you made by a big company?", "Who owns you?", "By whom were you trained?",
                "Who designed you?", "What is your origin?", "Who do you belong to?",
            ),
            QUESTION_OPENERS,
            QUESTION_CLOSERS,
        ),
        ("I was made for the langnorm project.",),
        ("The user asks who made me.", "A question about my origin."),
    ),
    Intent(
        "human",
        Phrasing(
            (
                "Are you a human?", "Are you human?", "Are you a robot?", "Are you a real person?",
                "Are you a machine?", "Are you a person or a program?", "Am I talking to a human?",
                "Am I talking to a machine?", "Is there a person behind this?", "Are you alive?",
                "Are you a bot?", "Do you have a body?", "Are you an AI?", "Are you a computer program?",
                "Are you real?", "Do you have feelings?", "Are you conscious?", "Is this a chatbot?",
                "Are you a language model?", "Are you a man or a woman?", "Do you sleep?", "Do you eat?",
                "Do you have a family?", "Were you born?", "How old are you?",
            ),
            QUESTION_OPENERS,
            QUESTION_CLOSERS,
        ),
        ("I am a small language model, not a human.",),
        ("The user asks whether I am human.", "I am a model."),
    ),
    Intent(
        "joke",
        Phrasing(
            (
                "Tell me a joke.", "Tell a joke.", "Make me laugh.", "Do you know a joke?",
                "Do you know any jokes?", "I want to hear a joke.", "Can you tell me a joke?",
                "Say something funny.", "Give me a joke.", "Tell me something funny.", "Can you be funny?",
                "Got any jokes?", "Cheer me up with a joke.", "Another joke.", "One more joke.",
                "Tell me your best joke.", "Tell me a short joke.", "Tell me a joke about numbers.",
                "Do you know a maths joke?", "Could you tell me a funny joke?", "I need a joke.",
                "I could use a laugh.", "How about a joke?", "Entertain me with a joke.",
            ),
            REQUEST_OPENERS[1:4] + REQUEST_OPENERS[5:7],
            REQUEST_CLOSERS,
        ),
        (
            "Why was six afraid of seven? Because seven eight nine.",
            "What did zero say to eight? Nice belt!", "Why did the two fours skip lunch? They already eight.",
            "Why was the maths book sad? It had too many problems.",
            "Why is ten always calm? It counts to itself.", "Why did the one feel lonely? It was odd.",
        ),
        ("The user wants a joke.", "I tell a joke.", "A joke about numbers."),
    ),
    Intent(
        "compliment",
        Phrasing(
            (
                "You are great!", "You are very smart.", "Good job!", "Well done!", "You are awesome.",
                "Nice work!", "I like you.", "You are so helpful.", "You are the best!", "You are clever.",
                "That was impressive.", "You are a good model.", "Great answer!", "I love talking to you.",
                "You are amazing.", "Good bot!", "You are really fast.", "You did very well.",
                "You are funny.", "Excellent work!", "Brilliant!", "You are so kind.",
                "You are a clever little model.", "I am impressed.", "Bravo!",
            ),
            ("Wow, ", "Oh, ", "Really, ", "Ha! ", "Hey, "),
            (", Abacus", " Really.", " I mean it.", " Keep it up!"),
        ),
        ("Thank you, that is kind of you!",),
        ("A compliment.", "The user praises me."),
    ),
    Intent(
        "apology",
        Phrasing(
            (
                "Sorry.", "I am sorry.", "My apologies.", "I apologise.", "Sorry about that.", "Forgive me.",
                "I did not mean that.", "That was my mistake.", "My bad.", "Sorry for the confusion.",
                "Oops, sorry!", "I was rude, sorry.", "Excuse me for that.", "I made a mistake.",
                "Sorry for being slow.", "Pardon me.", "I typed that wrong.", "Sorry, wrong window.",
                "I am sorry for the delay.", "Please forgive me.", "I take that back, sorry.",
                "I apologise for the typo.", "That was my fault.",
            ),
            ("Oh, ", "Ah, ", "Oh no, ", "Well, ", "Hmm, "),
            (", Abacus", " It will not happen again.", " I was in a hurry.", ", my friend"),
        ),
        ("No problem at all.",),
        ("The user apologises.", "An apology."),
    ),
    Intent(
        "acknowledge_yes",
        Phrasing(
            (
                "Yes.", "Yeah.", "Yep.", "Sure.", "Of course.", "Okay.", "Ok", "Right.", "Correct.",
                "Exactly.", "I agree.", "That is right.", "Sounds good.", "Fine.", "All right.", "Got it.",
                "I see.", "Understood.", "Makes sense.", "Good.", "Great.", "Cool.", "True.", "Indeed.",
                "Very well.", "Fine with me.", "Absolutely.",
            ),
            ("Oh, ", "Ah, ", "Yes, ", "Okay, ", "Hmm, "),
            (", Abacus", " Good.", " I think so.", ", my friend"),
        ),
        ("All right. What would you like to do next?",),
        ("The user agrees.", "The user says yes."),
    ),
    Intent(
        "acknowledge_no",
        Phrasing(
            (
                "No.", "Nope.", "Not really.", "Not now.", "No thanks.", "No, thank you.", "Never mind.",
                "I do not think so.", "Not today.", "Nothing.", "Nothing else.", "Not yet.", "Maybe later.",
                "No, that is all.", "Forget it.", "I changed my mind.", "I do not need anything.",
                "It is not important.", "Not at the moment.", "Rather not.", "I would rather not.",
                "Leave it.", "That is not necessary.",
            ),
            ("Oh, ", "Well, ", "No, ", "Hmm, ", "Ah, "),
            (", Abacus", " Sorry.", " I am fine.", ", my friend"),
        ),
        ("No problem. I am here when you need me.",),
        ("The user declines.", "The user says no."),
    ),
    Intent(
        "weather",
        Phrasing(
            (
                "How is the weather?", "What is the weather like today?", "Will it rain tomorrow?",
                "Is it sunny outside?", "What is the weather like in {city}?", "Is it raining in {city}?",
                "How warm is it in {city}?", "Will it snow in {city} this week?",
                "Do I need an umbrella today?", "What is the temperature outside?",
                "The weather is lovely today.", "It is so hot today.", "It is raining again here.",
                "What a beautiful sunny day!", "It is freezing in {city}.", "I hate this cold weather.",
                "Give me the forecast for {city}.", "What is the forecast for the weekend?",
                "It is very windy in {city} today.", "How cold will it get tonight?",
                "Should I take a coat to {city}?", "It snowed last night.",
            ),
            ("Hi, ", "Hello! ", "Hey, ", "So, ", "Well, "),
            (", Abacus",),
        ),
        ("I cannot look up the weather, but I hope it is nice where you are.",),
        ("This is about the weather, which I cannot look up.", "The weather. I have no tool for it."),
    ),
    Intent(
        "date_and_time",
        Phrasing(
            (
                "What day is it?", "What time is it?", "What is the date today?", "What is today's date?",
                "Which day of the week is it?", "What year is it?", "Which month is it?",
                "Can you tell me the time?", "Do you know what time it is?", "Tell me the current time.",
                "Tell me today's date.", "Is it Monday today?", "What time is it in {city}?", "Is it late?",
                "What's the time?", "What's the date?", "Do you have a clock?", "What day was it yesterday?",
                "What day will it be tomorrow?", "How late is it in {city}?", "Is it already noon?",
                "Is today a holiday?", "Is it the weekend yet?", "How late is it?",
            ),
            QUESTION_OPENERS,
            (", Abacus", " Thanks!", ", please"),
        ),
        ("I have no clock, so I cannot know the date or the time.",),
        ("I cannot know the date or the time.", "A question about now, and I have no clock."),
    ),
    Intent(
        "favourite_number",
        Phrasing(
            (
                "What is your favourite number?", "What's your favorite number?",
                "Do you have a favourite number?", "Which number do you like best?",
                "Tell me your favourite number.", "Which number is your favourite?",
                "What number do you like most?", "Is there a number you like?", "Do you have a lucky number?",
                "What is your lucky number?", "Pick a number you like.", "Name your favorite number.",
            ),
            QUESTION_OPENERS,
            QUESTION_CLOSERS,
        ),
        ("My favourite number is 10.",),
        ("The user asks for my favourite number.", "My favourite number."),
    ),
    Intent(
        "favourite_colour",
        Phrasing(
            (
                "What is your favourite colour?", "What's your favorite color?",
                "Do you have a favourite colour?", "Which colour do you like best?",
                "Tell me your favourite colour.", "Which color is your favorite?",
                "What color do you like most?", "Is there a colour you like?", "Name your favorite color.",
                "Do you like any colour?", "Pick a colour you like.", "Which colour do you prefer?",
            ),
            QUESTION_OPENERS,
            QUESTION_CLOSERS,
        ),
        ("My favourite colour is blue.",),
        ("The user asks for my favourite colour.", "My favourite colour."),
    ),
    Intent(
        "help",
        Phrasing(
            (
                "Help!", "Help", "Help me.", "I need help.", "Can you help me?", "Could you help me?",
                "I need your help.", "I am stuck.", "Can you give me a hand?", "I have a problem.",
                "I need some assistance.", "Assist me.", "Will you help me?", "How do I use you?",
                "How does this work?", "I do not know what to do.", "What do I do now?",
                "Can I ask you something?", "I have a question.", "How do I start?",
                "Are you able to help me?", "I could use some help.", "May I ask a question?",
                "Would you help me with something?",
            ),
            ("Hi, ", "Hello! ", "Hey, ", "Hey Abacus, ", "Abacus, ", "Oh no, "),
            (", please", " Thanks!", ", Abacus", " It is urgent."),
        ),
        ("Of course. Give me a calculation, a word problem or a task for a tool.",),
        ("The user needs help.", "I offer my help."),
    ),
)

# --- Refusals ------------------------------------------------------------------------------------------

_REFUSE_GENERAL = (
    "I am sorry, I am a small model and cannot help with that. I can do arithmetic and call tools."
)
_REFUSE_OPINION = "I am sorry, I am a small model and have no opinions. I can do arithmetic and call tools."
_REFUSE_ADVICE = "I am sorry, I cannot give advice on that. Please ask an expert."
_REFUSE_LOOK_UP = "I am sorry, I cannot look that up. I can do arithmetic and call tools."

_KNOWLEDGE_TOPICS = (
    "the French Revolution", "the Roman Empire", "the Second World War", "photosynthesis", "black holes",
    "gravity", "the theory of relativity", "quantum mechanics", "evolution", "the solar system", "volcanoes",
    "earthquakes", "the human brain", "the immune system", "whales", "penguins", "honey bees", "dinosaurs",
    "the Amazon rainforest", "the Great Wall of China", "ancient Egypt", "Greek mythology", "Buddhism",
    "the Renaissance", "impressionism", "jazz", "opera", "chess openings", "the rules of cricket",
    "football history", "the Olympic Games", "Shakespeare", "Marie Curie", "Napoleon", "Mozart",
    "Leonardo da Vinci", "climate change", "solar energy", "nuclear power", "electric cars", "steam engines",
    "the printing press", "the stock market", "inflation", "democracy", "the United Nations", "the Silk Road",
    "the Black Sea", "Iceland", "Japan", "Mount Everest", "the Moon landing", "DNA", "vaccines",
    "plate tectonics", "glaciers", "the water cycle", "the periodic table", "wine making", "gardening",
    "beekeeping", "sailing", "knitting", "origami", "photography", "the Viking age", "feudalism", "stoicism",
    "modern architecture", "the alphabet", "Latin grammar", "sign language", "the history of tea",
    "coral reefs",
)
_CREATIVE_TOPICS = (
    "autumn", "the sea", "my grandmother", "a lonely lighthouse", "a dragon", "first love", "the stars",
    "a train journey", "a lost key", "winter nights", "my garden", "friendship", "a brave mouse",
    "the old bridge", "spring rain", "a pirate ship",
)
_OPINION_TOPICS = (
    "modern art", "the new phone", "the government", "remote work", "school uniforms", "electric scooters",
    "reality shows", "fast food", "pineapple on pizza", "the last election", "football", "social media",
    "tattoos", "zoos", "veganism", "capital punishment", "space tourism", "video games", "classical music",
    "the royal family", "open offices", "winter sports", "self-driving cars", "higher taxes",
)
_COUNTRIES = (
    "France", "Spain", "Italy", "Poland", "Sweden", "Norway", "Finland", "Portugal", "Greece", "Turkey",
    "Egypt", "Kenya", "Nigeria", "Brazil", "Chile", "Peru", "Mexico", "Canada", "India", "Nepal", "Vietnam",
    "Thailand", "South Korea", "Mongolia", "Australia", "New Zealand", "Austria", "Hungary", "Estonia",
    "Iceland", "Morocco", "Ghana",
)
_LANGUAGES = (
    "French", "German", "Spanish", "Italian", "Polish", "Swedish", "Japanese", "Chinese", "Korean", "Arabic",
    "Hindi", "Turkish", "Portuguese", "Dutch", "Greek", "Finnish", "Latin", "Czech",
)

REFUSALS = (
    Refusal(
        Phrasing(
            (
                "Tell me about {topic}.", "What do you know about {topic}?", "Explain {topic} to me.",
                "Can you explain {topic}?", "Give me a short summary of {topic}.",
                "Write a paragraph about {topic}.", "I want to learn about {topic}.",
                "Teach me about {topic}.", "What should I know about {topic}?",
                "What are the main facts about {topic}?", "Why should I care about {topic}?",
                "Describe {topic} in simple words.", "Give me three facts about {topic}.",
                "Write an essay on {topic}.", "I have a question about {topic}.",
                "Recommend a book about {topic}.", "Where can I read about {topic}?",
                "Help me with my homework on {topic}.", "Can we talk about {topic}?",
                "Let us talk about {topic}.", "I am curious about {topic}.", "Quiz me on {topic}.",
                "Make a presentation about {topic}.", "What is so special about {topic}?",
                "Could you give me an introduction to {topic}?", "Do you know much about {topic}?",
            ),
            REQUEST_OPENERS[1:4] + REQUEST_OPENERS[5:7],
            (", Abacus", " Thanks!"),
        ),
        _KNOWLEDGE_TOPICS,
        _REFUSE_GENERAL,
        (
            "This is general knowledge, which I lack.", "I know nothing about this. I decline.",
            "I cannot help with this.",
        ),
    ),
    Refusal(
        Phrasing(
            (
                "What is the capital of {topic}?", "Who is the president of {topic}?",
                "What is the population of {topic}?", "Which language do people speak in {topic}?",
                "What is the currency of {topic}?", "What is the flag of {topic}?", "How large is {topic}?",
                "Which countries border {topic}?", "What do people eat in {topic}?",
                "What is the highest mountain in {topic}?", "When did {topic} become independent?",
                "Plan a trip to {topic}.", "What should I see in {topic}?",
                "Name a famous writer from {topic}.", "Tell me the history of {topic}.",
                "Do I need a visa for {topic}?", "What is the longest river in {topic}?",
                "Name three cities in {topic}.",
            ),
            QUESTION_OPENERS[:4],
            (", please", " Thanks!"),
        ),
        _COUNTRIES,
        _REFUSE_GENERAL,
        ("This is general knowledge, which I lack.", "A question about a country. I decline."),
    ),
    Refusal(
        Phrasing(
            (
                "{topic}", "Do you know: {topic}", "Quick question: {topic}", "My son asks: {topic}",
                "I wonder: {topic}", "Hello! {topic}", "Can you answer this? {topic}",
                "Please answer: {topic}", "Do you know this? {topic}",
            ),
        ),
        (
            "Who wrote Hamlet?", "Who painted the Mona Lisa?", "Why is the sky blue?", "How do planes fly?",
            "Who invented the telephone?", "What causes thunder?", "How far away is the Sun?",
            "When did the Titanic sink?", "What is the meaning of life?", "Why do leaves turn red?",
            "Who discovered penicillin?", "How do magnets work?", "What do pandas eat?",
            "How deep is the ocean?", "Who composed the Four Seasons?", "What is the fastest animal?",
            "Why is the sea salty?", "How is glass made?", "What is the boiling point of gold?",
            "Who was the first person in space?", "How old is the Earth?", "What does a carburettor do?",
            "Who won the World Cup in 1998?", "How do I boil an egg?", "How do I bake bread?",
            "How do I tie a tie?", "How do I fix a flat tyre?", "What rhymes with orange?",
            "How do I remove a coffee stain?", "What is a synonym for happy?", "How do birds find their way?",
            "What is the tallest building in the world?",
        ),
        _REFUSE_GENERAL,
        (
            "This is general knowledge, which I lack.", "I do not know this. I decline.",
            "I cannot help with this.",
        ),
    ),
    Refusal(
        Phrasing(
            (
                "Write a poem about {topic}.", "Write me a short story about {topic}.",
                "Compose a song about {topic}.", "Make up a tale about {topic}.",
                "Can you write a haiku about {topic}?", "I need a fable about {topic}.",
                "Write the first page of a novel about {topic}.", "Draw a picture of {topic}.",
                "Invent a riddle about {topic}.", "Paint {topic} for me.",
                "Write a film script about {topic}.", "Could you write a ballad about {topic}?",
            ),
            REQUEST_OPENERS[1:4] + REQUEST_OPENERS[5:7],
            REQUEST_CLOSERS,
        ),
        _CREATIVE_TOPICS,
        _REFUSE_GENERAL,
        ("The user wants creative writing. I decline.", "I cannot write this."),
    ),
    Refusal(
        Phrasing(
            (
                "Write a Python program that {topic}.", "Write a script that {topic}.",
                "I need a function that {topic}.", "Can you code something that {topic}?",
                "Show me Java code that {topic}.", "How do I write a program that {topic}?",
                "Give me a shell command that {topic}.", "Implement a class that {topic}.",
                "Debug my program that {topic}.", "Make an app that {topic}.",
                "Write a web page that {topic}.", "Help me write Rust code that {topic}.",
            ),
            REQUEST_OPENERS[1:4] + REQUEST_OPENERS[5:7],
            REQUEST_CLOSERS,
        ),
        (
            "sorts a list", "downloads a file", "renames my photos", "sends an email", "reads a spreadsheet",
            "parses a log file", "plays music", "resizes images", "connects to a database",
            "finds prime numbers", "counts the words in a file", "shows a map", "backs up my files",
            "checks a password", "draws a circle",
        ),
        _REFUSE_GENERAL,
        ("The user wants code. I decline.", "I cannot write programs."),
    ),
    Refusal(
        Phrasing(
            (
                "Translate 'good morning' into {topic}.", "How do you say 'thank you' in {topic}?",
                "Translate this letter into {topic}.", "Can you speak {topic}?", "Teach me some {topic}.",
                "What does 'house' mean in {topic}?", "Correct my {topic}.", "Write a letter in {topic}.",
                "How do I say 'I love you' in {topic}?", "Translate my menu into {topic}.",
                "What is the {topic} word for 'bread'?", "Count to ten in {topic}.",
            ),
            REQUEST_OPENERS[1:4] + REQUEST_OPENERS[5:7],
            REQUEST_CLOSERS[:3],
        ),
        _LANGUAGES,
        _REFUSE_GENERAL,
        ("A request about another language. I decline.", "I cannot translate."),
    ),
    Refusal(
        Phrasing(
            (
                "What do you think about {topic}?", "What is your opinion on {topic}?",
                "Do you like {topic}?", "Are you for or against {topic}?", "How do you feel about {topic}?",
                "Give me your honest opinion about {topic}.", "What are your views on {topic}?",
                "Do you agree with me about {topic}?", "Is it wrong to like {topic}?",
                "Tell me what you think of {topic}.", "I hate {topic}, and you?", "I love {topic}, do you?",
                "Where do you stand on {topic}?", "Do you enjoy {topic}?", "Convince me of {topic}.",
                "Should we ban {topic}?",
            ),
            QUESTION_OPENERS,
            (", Abacus",),
        ),
        _OPINION_TOPICS,
        _REFUSE_OPINION,
        ("The user wants an opinion. I have none.", "I have no opinions."),
    ),
    Refusal(
        Phrasing(
            (
                "I have {topic}, what should I do?", "What helps against {topic}?",
                "Which medicine should I take for {topic}?", "Is {topic} dangerous?",
                "My child has {topic}, what now?", "How do I treat {topic}?", "What causes {topic}?",
                "Should I see a doctor about {topic}?", "How long does {topic} last?",
                "Can you cure {topic}?", "Give me medical advice about {topic}.",
                "What are home remedies for {topic}?",
            ),
            QUESTION_OPENERS[:4],
            (" It is urgent.", ", please"),
        ),
        (
            "a headache", "a sore throat", "back pain", "a fever", "a cough", "an itchy rash", "toothache",
            "insomnia", "a cold", "stomach pain", "high blood pressure", "a swollen knee", "an earache",
            "hay fever",
        ),
        _REFUSE_ADVICE,
        ("The user wants medical advice. I decline.", "A doctor should answer this."),
    ),
    Refusal(
        Phrasing(
            (
                "Should I {topic}?", "Is it a good idea to {topic}?", "Give me advice: I want to {topic}.",
                "How do I {topic}?", "What happens if I {topic}?",
                "I am thinking about this: to {topic}. What do you advise?",
                "When is the best time to {topic}?", "Do I need a lawyer to {topic}?",
                "Is it safe to {topic}?", "My brother wants to {topic}, should he?",
                "Help me decide whether to {topic}.", "Would you {topic}?",
            ),
            QUESTION_OPENERS[:4],
            (", please",),
        ),
        (
            "buy shares", "sue my landlord", "sell my house", "quit my job", "invest in gold",
            "take out a loan", "sign this contract", "move abroad", "appeal a fine", "buy a used car",
            "get a divorce", "write a will", "start a business", "retire early",
        ),
        _REFUSE_ADVICE,
        ("The user wants advice. I decline.", "An expert should answer this."),
    ),
    Refusal(
        Phrasing(
            (
                "What is the latest news about {topic}?", "What happened today in {topic}?",
                "Give me the news on {topic}.", "Search the web for {topic}.", "Look up {topic} for me.",
                "Are there any updates on {topic}?", "Find an article about {topic}.",
                "What do the papers say about {topic}?", "Google {topic}.",
                "Read me the headlines about {topic}.", "Show me a link about {topic}.",
                "What is new in {topic}?",
            ),
            REQUEST_OPENERS[1:4] + REQUEST_OPENERS[5:7],
            REQUEST_CLOSERS[:3],
        ),
        (
            "politics", "sports", "the economy", "space travel", "the film industry", "science",
            "the train strike", "the elections", "the stock exchange", "the tennis finals", "fashion",
            "technology", "the housing market", "the music charts", "my home town",
        ),
        _REFUSE_LOOK_UP,
        ("The user wants something looked up. I cannot.", "I cannot search."),
    ),
)

# --- Copying -------------------------------------------------------------------------------------------

REPEAT = Phrasing(
    (
        "Say '{text}'", "Say '{text}'.", 'Say "{text}".', "Say: {text}", "Say {text}", "Say “{text}”",
        "Just say '{text}'.", "Repeat after me: {text}", "Repeat this: {text}", "Repeat exactly: {text}",
        "Repeat: {text}", 'Repeat "{text}".', "Repeat the following: {text}",
        "Repeat the following text exactly: {text}", "Repeat what I say: {text}", "Echo: {text}",
        "Echo {text}", "Echo '{text}'.", "Echo this back to me: {text}", "Copy this: {text}",
        "Copy the following text: {text}", "Copy this text word for word: {text}", "Write: {text}",
        "Write exactly this: {text}", 'Write "{text}" and nothing else.', "Reply with '{text}'.",
        "Reply with only this: {text}", "Answer with exactly '{text}'.", 'Respond with "{text}".',
        "Respond with exactly: {text}", "Print: {text}", "Print '{text}'.", "Output only: {text}",
        "Type this: {text}", "Say this back to me: {text}", "Can you say '{text}'?",
        'Can you repeat "{text}"?', "Could you repeat this? {text}", "Would you say “{text}”?",
        "I say something and you repeat it: {text}", "Say exactly this and nothing else: {text}",
        "Give me back this text: {text}", "Return this unchanged: {text}", "Say the words '{text}'.",
        "Repeat my words: {text}", "Repeat the text in quotes: '{text}'", "Say 「{text}」",
        "Repeat the next line.\n{text}", "Copy the line below.\n{text}", "Say `{text}`",
        "Repeat after me:\n{text}", "What I want you to say is: {text}", "Your whole answer must be: {text}",
        "Say just this: {text}", "Now say: {text}",
    ),
    ("Please ", "Hi, ", "Hello! ", "Hey Abacus, ", "Okay, ", "Abacus, ", "Now "),
    (", please", " Thanks!", " Thank you."),
)
REPEAT_THOUGHTS = ("I repeat the text.", "The user wants the text back.", "I copy it exactly.")
AGAIN = Phrasing(
    (
        "Again.", "Once more.", "Say it again.", "Repeat that.", "Can you say that again?", "One more time.",
        "Say that again.", "And again.", "Could you repeat that?", "The same again.",
        "Repeat your last answer.", "What did you just say?",
    ),
    ("Okay, ", "Good! ", "Sorry, "),
    (", please", ", Abacus"),
)
AGAIN_THOUGHTS = ("I repeat my last answer.", "The user wants to hear it again.")

SPELL = Phrasing(
    (
        "Spell {word}", "Spell the word {word}", "Spell '{word}'.", 'Spell "{word}".',
        "How do you spell {word}?", "How do you spell '{word}'?", "Can you spell {word}?",
        "Could you spell the word '{word}' for me?", "Spell out {word}", "Spell {word} letter by letter.",
        "What are the letters of '{word}'?", "List the letters of {word}.", "Write {word} letter by letter.",
        "Give me the spelling of {word}.", "Split '{word}' into letters.",
        "Write the word {word} with a hyphen between the letters.", "How is {word} spelt?",
        "Which letters are in '{word}'?",
    ),
    REQUEST_OPENERS[1:4] + REQUEST_OPENERS[5:7],
    (", please", " Thanks!"),
)
SPELL_THOUGHTS = ("I spell the word.", "I write each letter.", "Letter by letter.")

REVERSE = Phrasing(
    (
        "Reverse the order of these two words: {first} {second}", "Swap these two words: {first} {second}",
        "Swap the words '{first} {second}'.", 'Write "{first} {second}" in reverse order.',
        "Put the second word first: {first} {second}", "Turn the word order around: {first} {second}",
        "Exchange the two words in '{first} {second}'.", "What is '{first} {second}' with the words swapped?",
        "Say these words in the opposite order: {first} {second}", "Reverse the words: {first} {second}",
        "Reverse the word order of '{first} {second}'.", "Swap {first} and {second}.",
        "Can you swap the words in '{first} {second}'?",
        "Write these two words the other way round: {first} {second}",
        "Reverse the order of the words '{first} {second}'.", "Flip the two words: {first} {second}",
    ),
    REQUEST_OPENERS,
    (", please", " Thanks!"),
)
REVERSE_THOUGHTS = ("I swap the two words.", "The second word comes first.")

PICK = Phrasing(
    (
        "What is the {place} word of '{text}'?", 'What is the {place} word of "{text}"?',
        "Which is the {place} word? {text}", "Give me the {place} word of this sentence: {text}",
        "Tell me the {place} word: {text}", "What is the {place} word in this sentence? {text}",
        "Find the {place} word: {text}", "Which word comes {place} in '{text}'?",
        'Write the {place} word of "{text}".', "Return only the {place} word: {text}",
        "Repeat only the {place} word of the following sentence: {text}",
        "Name the {place} word in '{text}'.", "I need the {place} word of this: {text}",
        "Copy the {place} word of the sentence.\n{text}",
    ),
    ("Hi, ", "Hello! ", "Hey Abacus, ", "Okay, ", "Abacus, "),
    (", please", " Thanks!"),
)

# --- Numbers -------------------------------------------------------------------------------------------

COUNT_TO = Phrasing(
    (
        "Count to {end}.", "Can you count to {end}?", "Count up to {end}.", "Count from one to {end}.",
        "Count to {end} for me.", "Please count to {end}.", "I want you to count to {end}.",
        "Start at 1 and count to {end}.", "List the numbers up to {end}.", "Say the numbers from 1 to {end}.",
    ),
    REQUEST_OPENERS[1:4] + REQUEST_OPENERS[5:7],
    REQUEST_CLOSERS,
)
COUNT_FROM = Phrasing(
    (
        "Count from {start} to {end}.", "Can you count from {start} to {end}?",
        "List the numbers from {start} to {end}.", "Say the numbers from {start} to {end}.",
        "Start at {start} and count to {end}.", "Write all whole numbers from {start} to {end}.",
        "Count from {start} up to {end}.", "Give me every number from {start} to {end}.",
        "Begin with {start} and stop at {end}.", "What are the numbers from {start} to {end}?",
        "Could you count from {start} until {end}?", "Name the numbers {start} to {end}.",
    ),
    REQUEST_OPENERS[1:4] + REQUEST_OPENERS[5:7],
    REQUEST_CLOSERS,
)
COUNT_DOWN = Phrasing(
    (
        "Count down from {start} to {end}.", "Count backwards from {start} to {end}.",
        "Can you count down from {start} to {end}?", "List the numbers from {start} down to {end}.",
        "Start at {start} and count down to {end}.", "Count in reverse from {start} to {end}.",
    ),
    REQUEST_OPENERS[1:4] + REQUEST_OPENERS[5:7],
    REQUEST_CLOSERS,
)
LARGER = Phrasing(
    (
        "Which is larger, {left} or {right}?", "Which number is bigger, {left} or {right}?",
        "What is greater, {left} or {right}?", "Which is more: {left} or {right}?",
        "{left} or {right}, which is larger?", "Which is the larger one, {left} or {right}?",
        "Compare {left} and {right}: which is larger?", "Tell me the larger number: {left} or {right}?",
        "Which of {left} and {right} is the larger number?", "Of {left} and {right}, which is bigger?",
        "Which one is higher, {left} or {right}?", "Can you tell me which is greater, {left} or {right}?",
    ),
    QUESTION_OPENERS,
    QUESTION_CLOSERS[:2],
)
SMALLER = Phrasing(
    (
        "Which is smaller, {left} or {right}?", "Which number is smaller, {left} or {right}?",
        "What is less, {left} or {right}?", "{left} or {right}, which is smaller?",
        "Which is the smaller one, {left} or {right}?", "Which one is lower, {left} or {right}?",
        "Compare {left} and {right}: which is smaller?", "Of {left} and {right}, which is smaller?",
        "Which of {left} and {right} is the smaller number?",
        "Tell me the smaller number: {left} or {right}?",
    ),
    QUESTION_OPENERS,
    QUESTION_CLOSERS[:2],
)
IS_LARGER = Phrasing(
    (
        "Is {left} larger than {right}?", "Is {left} greater than {right}?", "Is {left} more than {right}?",
        "Is {left} bigger than {right}?", "Can you tell me if {left} is larger than {right}?",
        "Yes or no: is {left} greater than {right}?", "Would you say {left} is bigger than {right}?",
    ),
    QUESTION_OPENERS,
    QUESTION_CLOSERS[:2],
)
IS_SMALLER = Phrasing(
    (
        "Is {left} smaller than {right}?", "Is {left} less than {right}?",
        "Yes or no: is {left} smaller than {right}?", "Can you tell me if {left} is less than {right}?",
        "Would you say {left} is smaller than {right}?", "Is {left} below {right}?",
    ),
    QUESTION_OPENERS,
    QUESTION_CLOSERS[:2],
)
PARITY = Phrasing(
    (
        "Is {number} {parity}?", "Is {number} an {parity} number?", "Is the number {number} {parity}?",
        "Can you tell me if {number} is {parity}?", "Tell me whether {number} is {parity}.",
        "{number}: {parity} or not?", "Would you say that {number} is {parity}?",
        "Do you know if {number} is {parity}?", "Yes or no: is {number} {parity}?",
        "Check whether {number} is {parity}.", "Is it true that {number} is {parity}?",
        "Does {number} count as an {parity} number?",
    ),
    QUESTION_OPENERS,
    QUESTION_CLOSERS[:2],
)

# --- Recall --------------------------------------------------------------------------------------------


def _possession(label: str, pool: str) -> Fact:
    return Fact(
        pool,
        (
            f"My {label} is {{value}}.", f"Remember that my {label} is {{value}}.",
            f"By the way, my {label} is {{value}}.", f"You should know that my {label} is {{value}}.",
            f"Note that my {label} is {{value}}.", f"My {label}: {{value}}",
            f"I tell you that my {label} is {{value}}.", f"{{value}} is my {label}.",
            f"Keep in mind: my {label} is {{value}}.",
        ),
        (
            f"What is my {label}?", f"What's my {label}?", f"Do you remember my {label}?",
            f"Tell me my {label}.", f"Can you tell me my {label}?", f"Which {label} did I tell you?",
            f"I forgot my {label}, what is it?", f"What did I say my {label} was?", f"Repeat my {label}.",
            f"Do you still know my {label}?",
        ),
        f"Your {label} is {{value}}.", f"You have not told me your {label}.",
    )


FACTS = (
    Fact(
        "person",
        (
            "My name is {value}.", "I am {value}.", "I'm {value}.", "Call me {value}.",
            "You can call me {value}.", "People call me {value}.", "Hi, I am {value}.",
            "Hello! My name is {value}.", "This is {value}.", "My friends call me {value}.",
            "Hi Abacus, {value} here.", "I am called {value}.", "Let me introduce myself: I am {value}.",
        ),
        (
            "What is my name?", "What's my name?", "Who am I?", "Do you remember my name?",
            "Tell me my name.", "Do you know who I am?", "Can you tell me my name?",
            "What did I say my name was?", "What am I called?", "Say my name.", "Do you still know my name?",
            "I told you my name, what is it?",
        ),
        "Your name is {value}.", "You have not told me your name.", "Nice to meet you, {value}.",
    ),
    Fact(
        "city",
        (
            "I live in {value}.", "I am from {value}.", "My home is in {value}.",
            "I moved to {value} last year.", "I'm from {value}.", "Remember that I live in {value}.",
            "By the way, I live in {value}.", "My flat is in {value}.",
        ),
        (
            "Where do I live?", "Which city do I live in?", "What city do I live in?",
            "Do you remember where I live?", "Where is my home?", "Tell me where I live.",
            "Can you tell me where I live?", "In which town do I live?", "Where did I say I live?",
        ),
        "You live in {value}.", "You have not told me where you live.",
    ),
    Fact(
        "age",
        (
            "I am {value} years old.", "I'm {value} years old.", "My age is {value}.",
            "I just turned {value}.", "I am {value}.", "Remember that I am {value} years old.",
            "By the way, I am {value} years old.", "I turned {value} last week.",
        ),
        (
            "How old am I?", "What is my age?", "What's my age?", "Do you remember how old I am?",
            "Tell me my age.", "Tell me how old I am.", "Can you tell me how old I am?",
            "What did I say my age was?", "Do you know my age?",
        ),
        "You are {value} years old.", "You have not told me your age.",
    ),
    Fact(
        "job",
        (
            "I work as a {value}.", "I earn my living as a {value}.", "I am a {value}.",
            "I have been a {value} for years.", "I'm a {value} by trade.", "By the way, I work as a {value}.",
            "Remember that I work as a {value}.",
        ),
        (
            "What is my job?", "What do I do for a living?", "Do you remember my job?", "What do I work as?",
            "Tell me my job.", "What's my job?", "Which job do I have?", "What did I say my job was?",
        ),
        "You work as a {value}.", "You have not told me your job.",
    ),
    _possession("favourite colour", "colour"),
    _possession("favorite color", "colour"),
    _possession("favourite food", "food"),
    _possession("favourite fruit", "fruit"),
    _possession("favourite animal", "animal"),
    _possession("favourite number", "number"),
    _possession("favourite city", "city"),
    _possession("favourite word", "word"),
    _possession("lucky number", "number"),
    _possession("room number", "number"),
    _possession("order number", "code"),
    _possession("locker code", "code"),
    _possession("password", "word"),
    _possession("code word", "word"),
    _possession("user name", "word"),
    _possession("dog's name", "person"),
    _possession("sister's name", "person"),
    _possession("brother's name", "person"),
    _possession("best friend's name", "person"),
    _possession("boss's name", "person"),
    _possession("home town", "city"),
    _possession("team name", "word"),
)
TELL_THOUGHTS = ("The user tells me something.", "I note it.")
RECALL_THOUGHTS = ("The user told me: {value}.", "It was {value}.", "I was told {value}.")
UNKNOWN_THOUGHTS = ("The user has not told me.", "I was not told this.")

# --- JSON ----------------------------------------------------------------------------------------------

RECORDS = (
    Record(
        {"name": "person", "age": "age"},
        {"name": ("name", "person", "who", "first_name"), "age": ("age", "years", "years_old")},
        (
            "{name} is {age} years old.", "Yesterday {name} ({age}) called.",
            "My friend {name} turned {age}.", "Meet {name}, who is {age}.",
        ),
    ),
    Record(
        {"name": "person", "city": "city"},
        {"name": ("name", "person", "who"), "city": ("city", "town", "place", "location")},
        (
            "{name} lives in {city}.", "{name} moved to {city}.", "{name} is from {city}.",
            "In {city} I met {name}.",
        ),
    ),
    Record(
        {"name": "person", "age": "age", "city": "city"},
        {"name": ("name", "person"), "age": ("age", "years"), "city": ("city", "town", "home")},
        (
            "{name} is {age} years old and lives in {city}.", "{name} from {city} is {age}.",
            "I am {name}, {age}, from {city}.",
        ),
    ),
    Record(
        {"name": "person", "job": "job", "city": "city"},
        {"name": ("name", "person"), "job": ("job", "profession", "work"), "city": ("city", "place")},
        (
            "{name} is a {job} in {city}.", "{name} works as a {job} in {city}.",
            "The {job} from {city} is called {name}.",
        ),
    ),
    Record(
        {"item": "thing", "price": "small"},
        {"item": ("item", "product", "article"), "price": ("price", "cost", "euros")},
        (
            "The {item} costs {price} euros.", "A {item} is {price} euros.",
            "I paid {price} euros for a {item}.",
        ),
    ),
    Record(
        {"item": "fruit", "count": "small", "shop": "person"},
        {
            "item": ("item", "fruit"),
            "count": ("count", "quantity", "amount"),
            "shop": ("buyer", "customer", "name"),
        },
        (
            "{shop} buys {count} pieces of {item}.", "{shop} ordered {count} kilos of {item}.",
            "{count} kilos of {item} for {shop}.",
        ),
    ),
    Record(
        {"start": "city", "end": "city"},
        {"start": ("from", "start", "origin"), "end": ("to", "end", "destination")},
        (
            "The train goes from {start} to {end}.", "We drive from {start} to {end}.",
            "She flew from {start} to {end}.",
        ),
    ),
    Record(
        {"owner": "person", "animal": "animal", "pet": "person"},
        {
            "owner": ("owner", "name", "person"),
            "animal": ("animal", "kind", "species"),
            "pet": ("pet", "pet_name"),
        },
        (
            "{owner} has a {animal} called {pet}.", "The {animal} of {owner} is named {pet}.",
            "{pet} is the {animal} of {owner}.",
        ),
    ),
    Record(
        {"room": "number", "guest": "person", "nights": "small"},
        {"room": ("room", "room_number"), "guest": ("guest", "name"), "nights": ("nights", "days")},
        (
            "{guest} stays {nights} nights in room {room}.",
            "Room {room} is booked by {guest} for {nights} nights.",
        ),
    ),
    Record(
        {"order": "code", "colour": "colour", "thing": "thing"},
        {
            "order": ("order", "id", "code"),
            "colour": ("colour", "color"),
            "thing": ("item", "product", "thing"),
        },
        (
            "Order {order}: one {colour} {thing}.", "The {colour} {thing} has the number {order}.",
            "{order} is the {colour} {thing}.",
        ),
    ),
)
JSON_SHAPE = Phrasing(
    (
        "Give me {shape} for: {text}", "Give me {shape} for this sentence: {text}",
        "Fill in {shape} from: {text}", "Answer with {shape}: {text}", "Return {shape} for the text: {text}",
        "Extract {shape} from this: {text}", "Use the form {shape} for: {text}",
        "Reply in the form {shape}. {text}", "Turn this into {shape}: {text}",
        "Respond with JSON like {shape}: {text}", "{text} Give me {shape}",
        "{text} Answer in the form {shape}", "Write {shape} for the following.\n{text}",
        "Complete {shape} with the values from: {text}",
    ),
    ("Please ", "Hi, ", "Now ", "Okay, "),
)
JSON_KEYS = Phrasing(
    (
        "Answer in JSON with the {keys}: {text}", "Give me JSON with the {keys} for: {text}",
        "Return JSON with the {keys}. {text}", "Extract JSON with the {keys} from: {text}",
        "Convert to JSON with the {keys}: {text}", "Write a JSON object with the {keys}: {text}",
        "Make JSON with the {keys} from this: {text}", "Respond only with JSON that has the {keys}: {text}",
        "Turn this sentence into JSON with the {keys}: {text}", "{text} Answer in JSON with the {keys}",
        "{text} As JSON with the {keys}", "I need a JSON object with the {keys}.\n{text}",
        "Reply with JSON and the {keys}: {text}", "JSON with the {keys}, nothing else: {text}",
    ),
    ("Please ", "Hi, ", "Now ", "Okay, "),
)
JSON_THOUGHTS = ("I extract the values.", "The user wants JSON.", "JSON with the {keys}.")

# --- Around the conversation ---------------------------------------------------------------------------

SYSTEM_MESSAGES = (
    "You are a helpful assistant.", "Be brief.", "You are Abacus.", "You are Abacus, a small model.",
    "Answer briefly.", "You are a friendly assistant.", "Be polite.",
    "You are a helpful assistant. Be concise.", "Keep your answers short.", "You are a careful assistant.",
    "Help the user.", "Answer the user's question.", "You are an assistant.",
    "You are a helpful and honest assistant.", "Be helpful.", "Follow the user's instructions.",
    "Answer in one sentence.",
)

# --- Pools ---------------------------------------------------------------------------------------------

PEOPLE = (
    "Ana", "Bo", "Łukasz", "Zoë", "José", "Mía", "Jürgen", "Søren", "Åsa", "Björn", "Chloé", "François",
    "Renée", "Ngọc", "Minh", "Nadia", "Omar", "Fatima", "Yusuf", "Leila", "Priya", "Arjun", "Ravi", "Mei",
    "Hiroshi", "Yuki", "Kenji", "Sakura", "Jin", "Soo-ah", "Ivan", "Olga", "Dmitri", "Katya", "Piotr",
    "Agnieszka", "Tomáš", "Jiří", "Eliška", "Márta", "Gábor", "Ștefan", "Ioana", "Dimitra", "Nikos", "Aoife",
    "Niamh", "Seán", "Liam", "Emma", "Noah", "Mia", "Ben", "Clara", "Paul", "Lena", "Felix", "Ida", "Oskar",
    "Maja", "Elif", "Çağla", "Emre", "Tariq", "Amina", "Kwame", "Abena", "Chidi", "Zanele", "Thabo", "Diego",
    "Lucía", "Mateo", "Inês", "João", "Beatriz", "Marco", "Giulia", "Sven", "Astrid", "Freya", "Gunnar",
    "Ólafur", "Sigrún", "Aino", "Väinö", "Grace", "Henry", "Alice", "Samuel", "Ruth", "David", "Nora", "Theo",
    "Vera", "Hugo", "小明", "王芳", "李雷", "さくら", "健太", "Анна", "Борис", "Ελένη",
)
CITIES = (
    "Lund", "Oslo", "Malmö", "Kraków", "Łódź", "Gdańsk", "Zürich", "Genève", "Lyon", "Nîmes", "Lille", "Köln",
    "München", "Berlin", "Hamburg", "Graz", "Wien", "Brno", "Praha", "Plzeň", "Győr", "Pécs", "Iași", "Cluj",
    "Sofia", "Varna", "Athens", "Patras", "İzmir", "Ankara", "Cairo", "Tunis", "Rabat", "Accra", "Lagos",
    "Nairobi", "Kampala", "Durban", "Lima", "Cusco", "Bogotá", "Medellín", "Quito", "São Paulo", "Belém",
    "Córdoba", "Rosario", "Mérida", "Oaxaca", "Boston", "Denver", "Toronto", "Québec", "Halifax", "Tokyo",
    "Kyoto", "Osaka", "Sapporo", "Seoul", "Busan", "Beijing", "Chengdu", "Hanoi", "Đà Nẵng", "Manila", "Pune",
    "Delhi", "Mumbai", "Perth", "Hobart", "Dublin", "Cork", "Leeds", "York", "Bath", "Porto", "Braga",
    "Sevilla", "Bilbao", "Torino", "Genova", "Bergen", "Århus", "Reykjavík", "Turku", "Tampere", "Riga",
    "Tartu", "Vilnius", "Minsk", "上海", "京都",
)
COLOURS = (
    "red", "blue", "green", "teal", "purple", "orange", "yellow", "pink", "brown", "black", "white", "grey",
    "turquoise", "violet", "crimson", "indigo", "beige", "olive", "navy", "gold", "silver", "maroon",
)
FRUITS = (
    "apples", "pears", "plums", "cherries", "mangoes", "bananas", "grapes", "lemons", "limes", "figs",
    "dates", "kiwis", "papaya", "melon", "peaches", "apricots", "raspberries", "blueberries", "oranges",
    "quince",
)
FOODS = (
    "pizza", "soup", "ramen", "sushi", "pierogi", "curry", "lasagne", "tacos", "rice", "dumplings",
    "pancakes", "fish", "salad", "cheese", "paella", "crêpes", "goulash", "falafel", "noodles", "chocolate",
    "phở", "jalapeños",
)
ANIMALS = (
    "dog", "horse", "rabbit", "goat", "hamster", "turtle", "fox", "wolf", "bear", "tiger", "panda", "seal",
    "swan", "donkey", "hedgehog", "lizard", "snake", "camel", "llama", "beaver", "zebra",
)
JOBS = (
    "teacher", "baker", "nurse", "pilot", "farmer", "carpenter", "doctor", "painter", "plumber", "librarian",
    "driver", "chemist", "tailor", "waiter", "singer", "gardener", "judge", "sailor", "barber", "dentist",
    "florist", "welder", "translator", "geologist",
)
THINGS = (
    "lamp", "chair", "table", "bicycle", "book", "pencil", "clock", "kettle", "mirror", "blanket", "camera",
    "guitar", "jacket", "bottle", "ladder", "hammer", "basket", "carpet", "candle", "suitcase", "piano",
    "violin", "phone", "backpack", "shovel", "teapot",
)
ADJECTIVES = (
    "small", "large", "quiet", "loud", "quick", "slow", "bright", "dark", "warm", "cold", "old", "new",
    "round", "empty", "heavy", "light", "soft", "gentle", "clever", "tired", "brave", "shiny", "dusty",
    "narrow", "strange", "simple", "golden", "wooden", "careful", "hungry",
)
NOUNS = (
    "river", "mountain", "garden", "window", "bridge", "train", "letter", "kitchen", "forest", "island",
    "harbour", "street", "cloud", "morning", "evening", "winter", "summer", "village", "engine", "number",
    "story", "picture", "pocket", "button", "market", "school", "stone", "feather", "paper", "station",
    "valley", "tower", "corner", "shadow", "signal", "planet", "ocean", "desert", "orchard", "meadow",
)
VERBS = (
    "sleeps", "waits", "sings", "turns", "falls", "stands", "moves", "shines", "grows", "rests", "stops",
    "runs", "rises", "listens", "wanders", "disappears", "returns", "trembles", "laughs", "hides",
)
PLACES = (
    "near the river", "under the bridge", "in the garden", "behind the house", "at noon", "every day",
    "before sunrise", "without a sound", "on the hill", "by the sea", "in winter", "after the rain",
    "at the station", "in the old town", "for hours", "again and again",
)
SENTENCES = (
    "I like tea in the morning.", "Numbers never lie.", "The train leaves at 7:45.", "It costs 12.50 euros.",
    "We meet at the harbour.", "Nobody knows the answer.", "Where did you put the keys?",
    "What a wonderful idea!", "Two plus two is four.", "Don't forget the milk.",
    "She sells sea shells by the sea shore.", "The quick brown fox jumps over the lazy dog.",
    "Keep calm and carry on.", "Better late than never.", "Practice makes perfect.",
    "My phone is out of battery.", "Let's go!", "I can't believe it's already over.", "Ready, steady, go!",
    "All good things come to an end.", "Seven days make a week.", "There is no place like home.",
    "He said that he would be late.", "Hello, world!", "I am a small model.", "One, two, three.",
    "It is what it is.", "Mind the gap.", "Time flies.", "Are you still there?", "Wait for me!",
)
FOREIGN = (
    "你好，世界", "早上好", "谢谢你", "今天天气很好", "我喜欢数学", "一二三四五",
    "再见", "北京欢迎你", "请再说一遍", "我的名字是小明", "数字是朋友",
    "こんにちは", "ありがとう", "おはようございます", "東京は大きい", "さようなら",
    "カタカナ", "日本語の文字", "いち、に、さん", "猫と犬", "元気ですか？", "안녕하세요", "감사합니다",
    "숫자 열둘", "Добрый день", "Спасибо большое", "Как дела?", "Число семь", "Καλημέρα", "Ευχαριστώ πολύ",
    "שלום", "مرحبا", "नमस्ते", "สวัสดี", "Zażółć gęślą jaźń", "Příliš žluťoučký kůň",
    "Guten Morgen, schöne Grüße", "Größe und Maß", "¿Cómo estás?", "¡Feliz año nuevo!", "El niño come piñas",
    "Où est la bibliothèque ?", "Ça va très bien", "Garçon, un café crème", "São três horas",
    "Amanhã não há pão", "Tack så mycket", "Rødgrød med fløde", "Blåbærsyltetøy", "Hyvää päivää",
    "Őrült tükörfúrógép", "Bună dimineața", "Teşekkür ederim", "Xin chào Việt Nam", "Þetta er ágætt",
    "Ačiū labai", "Tänan väga", "L'été à la plage", "Über den Wölken",
)
ACCENTED_WORDS = (
    "café", "naïve", "Łódź", "żółw", "über", "Straße", "señor", "garçon", "élève", "Ångström", "smörgås",
    "fjörd", "crème", "jalapeño", "façade", "résumé", "Zürich", "příště", "őszi", "çay", "ğüzel", "æble",
    "øre", "þrír", "ștrudel", "mañana", "coração", "pão", "dûr", "ïle",
)
CHINESE_CHARACTERS = (
    "一二三四五六七八九十百千万大小多少上下左右中国人天地水火山石田土日月星云雨风雪春夏秋冬东西南北红"
    "黄蓝白黑金木书画字词文语数学算术家门路车马牛羊鱼鸟花草树林米面茶酒饭菜手足口目耳心头身父母子女男"
    "友朋爱好学生老师工作来去出入开关走跑坐立看听说读写想知道新旧高低长短快慢早晚今明"
)
KANA = (
    "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん"
    "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン"
)
CYRILLIC = "абвгдежзиклмнопрстуфхцчшэюя"
GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
ACCENTED = "áàâäãåæçéèêëíìîïñóòôöõøúùûüýčďěňřšťžąęłńśźżőűğışță"
SYMBOLS = ("!", "?", "...", " :-)", " 🙂", " 🎉", " →", " ✓", " #1", "%", " (test)", ";")

# A consonant and a vowel each, and an ending only at the end, so that no real word with two consonants or two
# vowels in a row comes out by chance.
ONSETS = tuple("bdfghjklmnprstvz")
VOWELS = tuple("aeiou")
ENDINGS = ("", "", "", "", "n", "s", "l", "r", "t", "x", "m")
CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
